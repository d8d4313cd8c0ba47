"""What a sample of each class still asks of the weights."""

from __future__ import annotations

from imbdyn.report.figures._gradients import choices, gradient_rows, read_steps_note
from imbdyn.report.figures.chart import Axis, Lines
from imbdyn.report.figures.curves import class_lines, over_time
from imbdyn.report.figures.figure import Figure
from imbdyn.report.figures.source import Source


def draw(source: Source, parameter: str = "*", over: str = "steps") -> Lines:
    """Return ||G_c|| / n_c by class."""
    rows = gradient_rows(source, ["grad_norm", "count"], parameter)
    rows = rows.assign(y=rows["grad_norm"] / rows["count"])[["step", "class_id", "y"]]
    rows, x = over_time(source, rows, over, ["class_id"])
    axis = Axis("gradient norm ‖G_c‖ / n_c", "per sample", log=True)
    return class_lines(source, rows, x, axis, notes=read_steps_note(source))


FIGURE = Figure(
    "gradient_per_sample",
    "What a sample still asks for",
    "The same norm divided by the samples of the class in the step. A class that has been memorised asks for nothing "
    "more, however badly it generalises.",
    draw,
    choices,
    compared="ratio",
)
