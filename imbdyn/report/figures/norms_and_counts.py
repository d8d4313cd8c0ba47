"""The classifier's rows against the number of training samples."""

from __future__ import annotations

import numpy as np

from imbdyn.report.figures.chart import Axis, Lines, NothingToDrawError, Series
from imbdyn.report.figures.figure import Figure
from imbdyn.report.figures.source import Source


def draw(source: Source) -> Lines:
    """Return a point for each class: training samples, last ||w_c||."""
    rows = source.read("classifier", ["step", "class_id", "row_norm"]).dropna()
    if not len(rows):
        raise NothingToDrawError("The trace has no classifier rows.")
    last = rows[rows["step"] == rows["step"].max()].groupby("class_id")["row_norm"].last()
    counts = np.asarray(source.counts, dtype=float)
    series = []
    for group in reversed(source.shown_groups if source.has_many_classes else source.pair):
        classes = [c for c in group.classes if c in last.index and counts[c] > 0]
        if classes:
            series.append(
                Series(
                    f"group {group.key}",
                    group.label,
                    counts[classes],
                    last[classes].to_numpy(dtype=float),
                    family="classes",
                    colour=group.colour,
                    names=tuple(source.names[c] for c in classes),
                )
            )
    if not series:
        raise NothingToDrawError("No class has training samples.")
    return Lines(Axis("training samples", log=True), Axis("row norm ‖w_c‖", "last step"), tuple(series))


FIGURE = Figure(
    "norms_and_counts",
    "Row norms against samples",
    "One point a class, at the last step that was read. A slope says that the classifier's bias follows the counts.",
    draw,
)
