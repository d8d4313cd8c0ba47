"""Neural collapse of the classifier's input."""

from __future__ import annotations

from imbdyn.report.figures._features import evaluation_axis, splits
from imbdyn.report.figures.chart import Axis, Lines, NothingToDrawError
from imbdyn.report.figures.curves import plain_lines
from imbdyn.report.figures.figure import Figure
from imbdyn.report.figures.source import Source

_MEASURES = {
    "nc1": "NC1: within / between variance",
    "nc2_norm": "NC2: spread of the means' norms",
    "nc2_angle": "NC2: distance to equal angles",
    "nc3": "NC3: classifier against means",
    "nc4": "NC4: not the nearest mean",
}


def draw(source: Source, split: str = "") -> Lines:
    """Return the measures NC1 to NC4 over the evaluations of a split."""
    rows = source.read("features", ["step", "layer", *_MEASURES], split=split)
    if not len(rows):
        raise NothingToDrawError("The trace has no features: no evaluation, or a classifier that is not read.")
    rows = rows[rows["layer"] == rows["layer"].iloc[0]]
    x, axis = evaluation_axis(source, rows["step"], split)
    curves = [(label, rows.assign(x=x, y=rows[column])[["x", "y"]]) for column, label in _MEASURES.items()]
    return plain_lines(curves, axis, Axis("measure", "0 when collapsed", log=True), family="neural collapse")


FIGURE = Figure(
    "neural_collapse",
    "Neural collapse",
    "All five tend to 0 as the features of each class shrink to a point and the points spread out evenly (Papyan, "
    "Han, Donoho 2020). Under imbalance the means of rare classes come close to each other instead.",
    draw,
    splits,
)
