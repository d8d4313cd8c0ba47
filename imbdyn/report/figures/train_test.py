"""Mean recall of the rare classes and of the others, on the training data and on held-out data."""

from __future__ import annotations

from imbdyn.findings.recall import held_out_split, train_split
from imbdyn.report.figures._evaluated import class_curves
from imbdyn.report.figures.chart import Axis, Lines, NothingToDrawError, Series
from imbdyn.report.figures.figure import Figure
from imbdyn.report.figures.source import Source


def draw(source: Source) -> Lines:
    """Return four curves: two groups, train and held out."""
    series = []
    trace = source.trace
    for split, where in ((train_split(trace), "train"), (held_out_split(trace), "held out")):
        if split is None:
            raise NothingToDrawError("The trace has no evaluation of held-out data.")
        rows, x = class_curves(source, "accuracy", split)
        for group in reversed(source.pair):
            mean = rows[rows["class_id"].isin(group.classes)].groupby("x")["y"].mean().dropna()
            series.append(
                Series(
                    f"{group.key}, {where}",
                    f"{group.label}, {where}",
                    mean.index.to_numpy(dtype=float),
                    mean.to_numpy(dtype=float),
                    family=group.label,
                    colour=group.colour,
                    dashed=where == "held out",
                )
            )
    return Lines(x, Axis("mean recall", "share", lower=0.0, upper=1.0), tuple(series))


FIGURE = Figure(
    "train_test",
    "Train against test",
    "Mean recall over the classes of a group, solid on the training data, dashed on held-out data. Where a group's "
    "two lines part, it is memorised rather than learned.",
    draw,
    compared="difference",
)
