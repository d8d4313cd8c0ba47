"""How far the features of each class are spread."""

from __future__ import annotations

from imbdyn.report.figures._features import class_feature_lines, splits
from imbdyn.report.figures.chart import Axis, Lines
from imbdyn.report.figures.figure import Figure
from imbdyn.report.figures.source import Source


def draw(source: Source, split: str = "") -> Lines:
    """Return the variance within each class."""
    return class_feature_lines(source, "within_var", split, Axis("variance within the class", log=True))


FIGURE = Figure(
    "feature_spread",
    "Spread of the features",
    "The trace of the covariance of the classifier's inputs within a class. A class that collapses on the training "
    "data and not on held-out data is memorised.",
    draw,
    splits,
    compared="ratio",
)
