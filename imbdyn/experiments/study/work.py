"""One run of a study, wherever it is trained."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

from imbdyn.experiments.errors import ExperimentError
from imbdyn.experiments.study.plan import Task, loaded
from imbdyn.experiments.train import train

#: torch's random state and number of threads are the process's: its runs wait for each other, whatever its threads.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    failure: str | None = None
    """One line; None if it was trained to the end."""
    interrupted: bool = False
    warnings: list[str] = field(default_factory=list)
    """What the instrument warned of."""


def perform(task: Task, on_epoch: Callable[[], None]) -> Outcome:
    """Train a run, from its last checkpoint if there is one. Its failure is told, not raised: other runs go on.

    Args:
        task: the run.
        on_epoch: called after each epoch; a KeyboardInterrupt that it raises ends the run, which can be gone on with.
    """
    with _one_at_a_time, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            train(task.run, loaded(task.run.config), task.out, force=False, resume=True, on_epoch=on_epoch)
            failure, interrupted = None, False
        except KeyboardInterrupt:
            failure, interrupted = None, True
        except ExperimentError as error:
            failure, interrupted = _one_line(str(error)), False
        except Exception as error:  # a study of hours does not end with one of its runs
            failure, interrupted = _one_line(f"{type(error).__name__}: {error}"), False
    return Outcome(failure, interrupted, [_one_line(str(warning.message)) for warning in caught])


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]
