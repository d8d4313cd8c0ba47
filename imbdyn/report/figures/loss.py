"""Cross-entropy of each class over the epochs."""

from __future__ import annotations

from imbdyn.report.figures._evaluated import class_curves, splits
from imbdyn.report.figures.chart import Axis, Lines
from imbdyn.report.figures.curves import class_lines
from imbdyn.report.figures.figure import Figure
from imbdyn.report.figures.source import Source


def draw(source: Source, split: str = "train") -> Lines:
    """Return mean cross-entropy by class."""
    rows, x = class_curves(source, "loss", split)
    return class_lines(source, rows, x, Axis("mean cross-entropy", "nats", log=True))


FIGURE = Figure(
    "loss",
    "Loss of each class",
    "The mean of -log p of the true class over the class's samples, whatever the criterion that was trained. A rare "
    "class's loss that first rises above its start is the minority initial drop.",
    draw,
    splits,
    compared="ratio",
)
