"""Columns of the table `parameters` by step: what the figures of weights have in common."""

from __future__ import annotations

from imbdyn.report.figures._gradients import parameters
from imbdyn.report.figures.chart import Axis, Lines, NothingToDrawError
from imbdyn.report.figures.curves import STEPS, plain_lines
from imbdyn.report.figures.source import Source


def parameter_lines(source: Source, column: str, y: Axis) -> Lines:
    """Return a column of the table `parameters` by sampled step, a curve for each parameter that figures offer."""
    offered = [name for name in parameters(source, "parameters") if name != "*"]
    if not offered:
        raise NothingToDrawError("The trace has no parameters: no step was sampled.")
    every = source.parameters_in("parameters")
    curves = []
    for name in sorted(offered, key=every.index):
        rows = source.read("parameters", ["step", column], parameter=name)
        curves.append((name, rows.rename(columns={"step": "x", column: "y"})))
    left_out = len(every) - len(offered)
    notes = (f"{left_out} of {len(every)} parameters are left out.",) if left_out else ()
    return plain_lines(curves, STEPS, y, family="parameters", notes=notes)
