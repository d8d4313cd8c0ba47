"""Norm of each class's part of the gradient."""

from __future__ import annotations

from imbdyn.report.figures._gradients import choices, gradient_rows, read_steps_note
from imbdyn.report.figures.chart import Axis, Lines
from imbdyn.report.figures.curves import class_lines, over_time
from imbdyn.report.figures.figure import Figure
from imbdyn.report.figures.source import Source


def draw(source: Source, parameter: str = "*", over: str = "steps") -> Lines:
    """Return ||G_c|| by class."""
    rows = gradient_rows(source, ["grad_norm"], parameter).rename(columns={"grad_norm": "y"})
    rows, x = over_time(source, rows, over, ["class_id"])
    return class_lines(source, rows, x, Axis("gradient norm ‖G_c‖", log=True), notes=read_steps_note(source))


FIGURE = Figure(
    "gradient_norms",
    "Who moves the weights",
    "The norm of the part of the gradient that flows through the rows of a class: a contribution, so it carries the "
    "class's share of the batch. By epoch it is the mean over the sampled steps that had samples of the class.",
    draw,
    choices,
    compared="ratio",
)
