"""Norm of each class's row of the classifier."""

from __future__ import annotations

from imbdyn.report.figures.chart import Axis, Lines, NothingToDrawError
from imbdyn.report.figures.curves import class_lines, over_time
from imbdyn.report.figures.figure import Figure
from imbdyn.report.figures.source import Source


def draw(source: Source) -> Lines:
    """Return ||w_c|| by class and step."""
    rows = source.read("classifier", ["step", "class_id", "row_norm"]).rename(columns={"row_norm": "y"})
    if not len(rows):
        raise NothingToDrawError("The trace has no classifier rows.")
    rows = rows.drop_duplicates(["step", "class_id"])  # a sampled step and an evaluation after it say the same
    rows, x = over_time(source, rows, "steps", ["class_id"])
    return class_lines(source, rows, x, Axis("row norm ‖w_c‖"))


FIGURE = Figure(
    "classifier_norms",
    "Norms of the classifier's rows",
    "A class whose row is longer is predicted more easily. With SGD the rows of rare classes stay short (Kang et al. "
    "2020).",
    draw,
)
