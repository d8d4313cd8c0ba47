"""The three runs of an experiment: balanced, imbalanced, and the control that separates imbalance from scarcity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from imbdyn.experiments import profiles
from imbdyn.experiments.config import ExperimentConfig
from imbdyn.experiments.data import SplitData
from imbdyn.experiments.errors import ExistingRunError
from imbdyn.experiments.train import Run
from imbdyn.trace import TraceError
from imbdyn.trace._run_folder import read_run
from imbdyn.trace._store import below, exists, shown

__all__ = ["RUN_NAMES", "ExistingRunError", "directory", "plan", "recorded", "unfinished"]

#: The runs in the order in which they are trained and shown.
RUN_NAMES = ("balanced", "imbalanced", "scarce")


def plan(config: ExperimentConfig, data: SplitData) -> list[Run]:
    """Return the runs of an experiment, one for each of `RUN_NAMES`.

    The rare classes are the same in all three; where all counts are equal they are the group of comparison. The
    balanced run has as many samples of every class as the imbalanced one of its most frequent class, if there are as
    many of all. (Where imbalance is natural, there are not: then it is the scarce run once more.) A class that is rare
    has the same samples in the imbalanced and in the scarce run.

    Raises: ConfigError if the profile does not fit the data.
    """
    available = data.train_counts()
    chosen = config.imbalance.apply(available, config.seed)
    by_name = {
        "balanced": profiles.balanced(available, chosen.counts),
        "imbalanced": chosen.counts,
        "scarce": profiles.scarce(chosen.counts),
    }
    return [Run(name, config, by_name[name], chosen.rare) for name in RUN_NAMES]


def directory(out: str | Path, config: ExperimentConfig) -> str | Path:
    """Return where an experiment's traces go, below a path or a URI: a directory for each name and seed."""
    return below(out, f"{config.name}-seed{config.seed}")


def unfinished(runs: list[Run], folder: str | Path, *, resume: bool, force: bool) -> list[Run]:
    """Return the runs that are to be trained, given what `folder` already holds.

    With `force` all of them. With `resume` those whose trace does not say "finished": `train` goes on with them after
    their last checkpoint, or starts them again, which their seed makes the same run.

    Raises:
        ExistingRunError: if a trace exists and neither is set, or a finished one has another configuration.
        TraceError: for a URI that cannot be understood. OSError: if a store does not answer.
    """
    existing = [run for run in runs if exists(below(folder, run.name))]
    if force or not existing:
        return runs
    if not resume:
        raise ExistingRunError(
            f"{shown(below(folder, existing[0].name))} exists and is not overwritten: --resume keeps what is finished, "
            "--force replaces it"
        )
    finished = []
    for run in existing:
        record = recorded(below(folder, run.name))
        if record.get("status") != "finished":
            continue
        if record.get("config") != run.as_dict():
            raise ExistingRunError(
                f"{shown(below(folder, run.name))} was made with another configuration, so it cannot be resumed: "
                "--force replaces it, --out puts the new one elsewhere"
            )
        finished.append(run.name)
    return [run for run in runs if run.name not in finished]


def recorded(place: str | Path) -> dict[str, Any]:
    """Return a trace's run.json, empty if a crash left none that can be read."""
    try:
        return read_run(place)
    except TraceError:
        return {}
