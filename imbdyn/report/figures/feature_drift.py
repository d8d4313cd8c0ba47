"""How far the features of each class lie from where they lie in training."""

from __future__ import annotations

from imbdyn.report.figures._features import class_feature_lines, splits
from imbdyn.report.figures.chart import Axis, Lines
from imbdyn.report.figures.figure import Choices, Figure
from imbdyn.report.figures.source import Source


def choices(source: Source) -> Choices:
    """Offer the evaluations but the one of the training data, which is what they are compared with."""
    return {"split": [split for split in splits(source)["split"] if split != "train_eval"]}


def draw(source: Source, split: str = "") -> Lines:
    """Return the drift of each class's mean, relative to what chance allows."""
    axis = Axis("drift of the mean", "1 by chance", log=True)
    return class_feature_lines(source, "train_test_shift", split, axis, levels=((1.0, "expected by chance"),))


FIGURE = Figure(
    "feature_drift",
    "Drift from train to test",
    "The squared distance between a class's mean feature on the training data and on held-out data, over what two "
    "samples of one distribution would show: 1 is chance, more is a drift (after Ye et al. 2020).",
    draw,
    choices,
    compared="ratio",
)
