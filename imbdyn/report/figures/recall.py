"""Recall of each class over the epochs."""

from __future__ import annotations

from imbdyn.report.figures._evaluated import class_curves, splits
from imbdyn.report.figures.chart import Axis, Lines
from imbdyn.report.figures.curves import class_lines
from imbdyn.report.figures.figure import Figure
from imbdyn.report.figures.source import Source


def draw(source: Source, split: str = "train") -> Lines:
    """Return recall by class."""
    rows, x = class_curves(source, "accuracy", split)
    return class_lines(source, rows, x, Axis("recall", "share", lower=0.0, upper=1.0))


FIGURE = Figure(
    "recall",
    "Recall of each class",
    "The share of a class's samples that are predicted right. A class that is learned late starts late; one that is "
    "memorised reaches 1 on the training data and not on held-out data.",
    draw,
    splits,
    compared="difference",
)
