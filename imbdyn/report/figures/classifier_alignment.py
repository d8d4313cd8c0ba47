"""Angle between each class's row of the classifier and its mean feature."""

from __future__ import annotations

from imbdyn.report.figures._features import evaluation_axis
from imbdyn.report.figures.chart import Axis, Lines, NothingToDrawError
from imbdyn.report.figures.curves import class_lines
from imbdyn.report.figures.figure import Choices, Figure
from imbdyn.report.figures.source import Source


def choices(source: Source) -> Choices:
    """Offer the evaluations in which the classifier was read."""
    found = source.splits("classifier")
    return {"split": [split for split in source.evaluations if split in found and split != "train"]}


def draw(source: Source, split: str = "") -> Lines:
    """Return cos(w_c - mean of rows, mu_c - mu_G) by class."""
    rows = source.read("classifier", ["step", "class_id", "cos_class_mean"], split=split)
    rows = rows.rename(columns={"cos_class_mean": "y"}).dropna()
    if not len(rows):
        raise NothingToDrawError("The trace has no class means beside the classifier's rows.")
    x, axis = evaluation_axis(source, rows["step"], split)
    y = Axis("cosine of row and class mean", "both centred", upper=1.0)
    return class_lines(source, rows.assign(x=x), axis, y, levels=((0.0, "orthogonal"),))


FIGURE = Figure(
    "classifier_alignment",
    "Does the classifier point at the class?",
    "1 where a class's row points at the mean of its features, as in neural collapse; on held-out data a rare class's "
    "mean is often elsewhere.",
    draw,
    choices,
    compared="difference",
)
