"""Columns of the table `class_gradients`: what the figures of class gradients have in common."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from imbdyn.report.figures.chart import NothingToDrawError
from imbdyn.report.figures.curves import by_epoch_or_step
from imbdyn.report.figures.figure import Choices
from imbdyn.report.figures.source import Source

#: A figure offers at most so many parameters: the whole network, the classifier, and others from input to output.
MOST_PARAMETERS = 12


def parameters(source: Source, table: str = "class_gradients") -> list[str]:
    """Return the parameters that a figure offers, "*" first and the classifier second."""
    found = source.parameters_in(table)
    classifier = f"{source.trace.run.get('classifier')}.weight"
    first = [name for name in ("*", classifier) if name in found]
    rest = [name for name in found if name not in first]
    room = MOST_PARAMETERS - len(first)
    if len(rest) > room:
        rest = [rest[i * (len(rest) - 1) // (room - 1)] for i in range(room)]
    return first + rest


def choices(source: Source) -> Choices:
    """Offer parameters, and epochs or steps. Without class gradients nothing is offered."""
    return {"parameter": parameters(source), "over": by_epoch_or_step(source)}


def gradient_rows(source: Source, columns: Sequence[str], parameter: str) -> pd.DataFrame:
    """Return step, class_id and columns of one parameter; of a very large table, of every k-th sampled step.

    Raises: NothingToDrawError without any row.
    """
    stride = source.stride("class_gradients")
    steps = source.sampled_steps[::stride] if stride > 1 else None
    rows = source.read("class_gradients", ["step", "class_id", *columns], steps=steps, parameter=parameter)
    if not len(rows):
        raise NothingToDrawError("The trace has no class gradients: no step was sampled, or none was covered.")
    return rows


def read_steps_note(source: Source, table: str = "class_gradients") -> tuple[str, ...]:
    """Say which sampled steps were read, if not all."""
    stride = source.stride(table)
    return () if stride == 1 else (f"Every {stride}th of {len(source.sampled_steps):,} sampled steps is read.",)
