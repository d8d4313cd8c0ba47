"""Norms of the parameters."""

from __future__ import annotations

from imbdyn.report.figures._parameters import parameter_lines
from imbdyn.report.figures.chart import Axis, Lines
from imbdyn.report.figures.figure import Figure
from imbdyn.report.figures.source import Source


def draw(source: Source) -> Lines:
    """Return ||w|| by parameter."""
    return parameter_lines(source, "weight_norm", Axis("weight norm ‖w‖", log=True))


FIGURE = Figure(
    "weight_norms",
    "Norms of the weights",
    "A norm that keeps growing means that the loss is still lowered by scaling the logits, long after the training "
    "data are fitted.",
    draw,
)
