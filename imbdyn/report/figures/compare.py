"""Two runs against each other, curve by curve."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from imbdyn.report.figures.chart import Axis, Chart, Lines

#: A comparison is shown if at least so many points of a curve are at the same x in both runs.
_FEWEST_POINTS = 2


def compare(chart: Chart, reference: Chart, how: Literal["difference", "ratio"]) -> Lines | None:
    """Return chart minus reference, or chart over reference, of every curve that both have, where both have a point.

    None if there is no such curve, or if x counts optimizer steps: those of two trainings do not match.
    """
    if not (isinstance(chart, Lines) and isinstance(reference, Lines)):
        return None
    if chart.x != reference.x or chart.x.label != "epoch":
        return None
    before = {series.key: series for series in reference.series}
    compared = []
    for series in chart.series:
        if series.key not in before:
            continue
        other = before[series.key]
        x, mine, theirs = np.intersect1d(series.x, other.x, return_indices=True)
        if len(x) < _FEWEST_POINTS:
            continue
        y = series.y[mine] - other.y[theirs] if how == "difference" else series.y[mine] / other.y[theirs]
        compared.append(replace(series, x=x, y=y, lower=None, upper=None))
    if not compared:
        return None
    ratio = how == "ratio"
    y_axis = Axis(f"{chart.y.label}, {how}", "" if ratio else chart.y.unit, log=ratio)
    level = (1.0, "alike") if ratio else (0.0, "alike")
    return Lines(chart.x, y_axis, tuple(compared), levels=(level,))
