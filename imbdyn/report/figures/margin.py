"""Mean margin of each class over the epochs."""

from __future__ import annotations

from imbdyn.report.figures._evaluated import class_curves, splits
from imbdyn.report.figures.chart import Axis, Lines
from imbdyn.report.figures.curves import class_lines
from imbdyn.report.figures.figure import Figure
from imbdyn.report.figures.source import Source


def draw(source: Source, split: str = "train") -> Lines:
    """Return mean margin by class."""
    rows, x = class_curves(source, "margin", split)
    return class_lines(source, rows, x, Axis("mean margin", "logits"), levels=((0.0, "boundary"),))


FIGURE = Figure(
    "margin",
    "Margin of each class",
    "The logit of the true class minus the largest other one, mean over the class's samples: below 0 the mean sample "
    "is on the wrong side of the boundary (Cao et al. 2019).",
    draw,
    splits,
    compared="difference",
)
