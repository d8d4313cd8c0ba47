"""Relative size of the updates of the parameters."""

from __future__ import annotations

from imbdyn.report.figures._parameters import parameter_lines
from imbdyn.report.figures.chart import Axis, Lines
from imbdyn.report.figures.figure import Figure
from imbdyn.report.figures.source import Source


def draw(source: Source) -> Lines:
    """Return ||dw|| / ||w|| by parameter."""
    return parameter_lines(source, "update_ratio", Axis("relative update ‖Δw‖ / ‖w‖", log=True))


FIGURE = Figure(
    "update_ratios",
    "Relative updates",
    "How far a step moves a parameter, relative to its norm. Parameters with a ratio far from the others' learn at "
    "another pace.",
    draw,
)
