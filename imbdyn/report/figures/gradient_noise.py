"""Gradient noise within each class."""

from __future__ import annotations

from imbdyn.report.figures._gradients import choices, gradient_rows, read_steps_note
from imbdyn.report.figures.chart import Axis, Lines
from imbdyn.report.figures.curves import class_lines, over_time
from imbdyn.report.figures.figure import Figure
from imbdyn.report.figures.source import Source


def draw(source: Source, parameter: str = "*", over: str = "steps") -> Lines:
    """Return the noise scale by class."""
    rows = gradient_rows(source, ["grad_noise"], parameter).rename(columns={"grad_noise": "y"})
    rows, x = over_time(source, rows, over, ["class_id"])
    axis = Axis("noise scale tr(S_c) / ‖m_c‖²", "samples", log=True)
    return class_lines(source, rows, x, axis, notes=read_steps_note(source))


FIGURE = Figure(
    "gradient_noise",
    "Gradient noise within a class",
    "How many samples of the class it takes until its mean gradient stands out from the noise (McCandlish et al. "
    "2018). Known only for steps with two samples of the class or more.",
    draw,
    choices,
)
