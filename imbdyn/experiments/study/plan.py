"""From a study's cells to the runs that are to be trained, and where their traces go."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from imbdyn.experiments.config import ExperimentConfig, experiment
from imbdyn.experiments.data import SplitData
from imbdyn.experiments.errors import ExistingRunError
from imbdyn.experiments.run import plan, recorded
from imbdyn.experiments.study.grid import Cell, Study
from imbdyn.experiments.train import Run
from imbdyn.trace._store import below, shown


@dataclass(frozen=True)
class Task:
    """One run to be trained."""

    run: Run
    out: str | Path
    """Folder of its trace, or the URI of one."""


@dataclass(frozen=True)
class Planned:
    """A cell with its runs by name: "balanced", "imbalanced", "scarce"."""

    cell: Cell
    tasks: dict[str, Task]


def plan_study(study: Study, folder: str | Path) -> list[Planned]:
    """Return the runs of every cell.

    What the seed and all else but [imbalance] agree on is trained once: the balanced run of a seed stands beside all
    imbalance ratios. It has a folder of its own, FOLDER/seed-0/balanced, say; other runs are in the folder of their
    cell.

    Raises: ExperimentError if data cannot be had, or an experiment does not fit them.
    """
    planned = [(cell, plan(cell.config, loaded(cell.config))) for cell in study.cells]
    balanced: dict[str, set[str]] = defaultdict(set)
    for cell, runs in planned:
        balanced[cell.shared_label].add(_identity(runs[0].as_dict()))

    def place(cell: Cell, run: Run) -> str | Path:
        shared = run.name == "balanced" and len(balanced[cell.shared_label]) == 1
        return below(below(folder, cell.shared_label if shared else cell.label), run.name)

    return [Planned(cell, {run.name: Task(run, place(cell, run)) for run in runs}) for cell, runs in planned]


def unfinished_tasks(planned: list[Planned]) -> tuple[list[Task], int]:
    """Return the runs that are to be trained, each once, and how many are finished already.

    Raises: ExistingRunError if a finished trace has another configuration. TraceError, OSError: as of a store.
    """
    tasks = {str(task.out): task for cell in planned for task in cell.tasks.values()}
    todo = [task for task in tasks.values() if not _is_finished(task)]
    return todo, len(tasks) - len(todo)


def _is_finished(task: Task) -> bool:
    record = recorded(task.out)
    if record.get("status") != "finished":
        return False
    config = record.get("config")
    if not isinstance(config, dict) or _identity(config) != _identity(task.run.as_dict()):
        raise ExistingRunError(
            f"{shown(task.out)} was made with another configuration: remove it, or put the study elsewhere with --out"
        )
    return True


def _identity(run: Mapping[str, Any]) -> str:
    """Return what decides a run. Of [imbalance] that is the counts and the rare classes that it came to."""
    kept = {key: value for key, value in run["experiment"].items() if key != "imbalance"}
    return json.dumps({**run, "experiment": kept}, sort_keys=True)


def loaded(config: ExperimentConfig) -> SplitData:
    """Return the data of an experiment; the last ones are kept in memory.

    Raises: DataError, MissingPackageError.
    """
    source = json.dumps(config.as_dict()["data"], sort_keys=True)
    return _loaded(source, config.seed if config.data.seeded else 0)


@lru_cache(maxsize=1)
def _loaded(source: str, seed: int) -> SplitData:
    return experiment("data", {"data": json.loads(source)}).data.load(seed)
