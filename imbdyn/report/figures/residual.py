"""The instrument's own check: do the classes' parts sum to the gradient?"""

from __future__ import annotations

from imbdyn.report.figures.chart import Axis, Lines, NothingToDrawError
from imbdyn.report.figures.curves import STEPS, plain_lines
from imbdyn.report.figures.figure import Figure
from imbdyn.report.figures.source import Source


def draw(source: Source) -> Lines:
    """Return the largest residual over the parameters by sampled step."""
    rows = source.read("parameters", ["step", "residual"]).dropna()
    if not len(rows):
        raise NothingToDrawError("The trace has no residual: no step was sampled, or nothing was covered.")
    largest = rows.groupby("step")["residual"].max().rename_axis("x").rename("y").reset_index()
    curves = [("largest of all parameters", largest)]
    return plain_lines(curves, STEPS, Axis("largest residual", "relative", log=True), family="check")


FIGURE = Figure(
    "residual",
    "What the sum leaves over",
    "In each sampled step the classes' parts are summed and compared with p.grad; this is what is left, relative to "
    "(sum of the classes' norms)^2, of the parameter where it is largest. Float32 rounding is some 1e-7.",
    draw,
)
