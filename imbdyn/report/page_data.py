"""The figures of some runs as JSON, which the page's scripts draw."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from imbdyn.report.figures import FIGURES, Figure, Lines, Matrix, NothingToDrawError, Source, Spans
from imbdyn.report.figures.chart import Axis, Chart, Floats, Series
from imbdyn.report.figures.compare import compare
from imbdyn.report.figures.figure import Choices
from imbdyn.report.figures.summary import summary

#: Numbers on the page are rounded to so many significant digits; cosines to so many decimals.
DIGITS, COSINE_DECIMALS = 5, 3

_CHOICE_LABELS = {"split": "Data", "parameter": "Parameter", "over": "By", "measure": "Measure", "of": "Of"}
_VALUE_LABELS = {
    ("parameter", "*"): "* (whole network)",
    ("split", "train"): "train",
    ("split", "train_eval"): "train",
    ("over", "epochs"): "epoch",
    ("over", "steps"): "step",
}


def figures_data(
    sources: Sequence[Source], names: Sequence[str], reference: int, on_figure: Callable[[], None] = lambda: None
) -> list[dict[str, Any]]:
    """Return every figure with a chart for each run, for each combination of its choices.

    Args:
        sources: the runs.
        names: their names on the page.
        reference: position of the run that the others are set against.
        on_figure: called after every figure.
    """
    data = []
    for figure in FIGURES.values():
        data.append(_figure(figure, sources, names, reference))
        on_figure()
    return data


def embedded(data: Any) -> str:
    """Return JSON that can stand in a script element: no character in it can end one, or begin a comment."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for letter in "<>&\u2028\u2029":  # only strings can hold them, where JSON allows an escape
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _figure(figure: Figure, sources: Sequence[Source], names: Sequence[str], reference: int) -> dict[str, Any]:
    offered = [figure.choices(source) for source in sources]
    choices = {name: [*dict.fromkeys(value for one in offered for value in one[name])] for name in offered[0]}
    choices = {name: values or [""] for name, values in choices.items()}  # no run has any: each says why
    variants = {}
    for values in product(*choices.values()):
        chosen = dict(zip(choices, values, strict=True))
        charts = [_chart(figure, source, chosen, one) for source, one in zip(sources, offered, strict=True)]
        variants["|".join(values)] = {
            "charts": [_missing(chart) if isinstance(chart, str) else chart_data(chart) for chart in charts],
            **_against(figure, charts, names, reference),
        }
    return {
        "name": figure.name,
        "title": figure.title,
        "choices": [
            {
                "name": name,
                "label": _CHOICE_LABELS[name],
                "values": [{"value": v, "label": _VALUE_LABELS.get((name, v), v)} for v in values],
            }
            for name, values in choices.items()
        ],
        "against_label": f"{(figure.compared or '').capitalize()} {'to' if figure.compared == 'ratio' else 'from'} "
        f"{names[reference]}",
        "variants": variants,
    }


def _chart(figure: Figure, source: Source, chosen: dict[str, str], offered: Choices) -> Chart | str:
    """Return a run's chart, or why there is none."""
    for name, value in chosen.items():
        if value and value not in offered[name]:
            return f"This run has no {_CHOICE_LABELS[name].lower()} {value}."
    try:
        return figure.draw(source, **{name: value for name, value in chosen.items() if value})
    except NothingToDrawError as error:
        return str(error)


def _against(figure: Figure, charts: Sequence[Chart | str], names: Sequence[str], reference: int) -> dict[str, Any]:
    base = charts[reference]
    if figure.compared is None or isinstance(base, str):
        return {}
    compared = [
        None if i == reference or isinstance(chart, str) else compare(chart, base, figure.compared)
        for i, chart in enumerate(charts)
    ]
    if not any(compared):
        return {}
    sign = "over" if figure.compared == "ratio" else "minus"
    return {
        "against": [None if chart is None else chart_data(chart) for chart in compared],
        "against_names": [f"{name} {sign} {names[reference]}" for name in names],
    }


def chart_data(chart: Chart) -> dict[str, Any]:
    """Return a chart as JSON can hold it."""
    common = {"summary": summary(chart), "notes": list(chart.notes)}
    if isinstance(chart, Lines):
        axes = {"x": _axis(chart.x), "y": _axis(chart.y), "levels": [list(level) for level in chart.levels]}
        grid = np.unique(np.concatenate([series.x for series in chart.series]))
        series = [_series(s, grid) for s in chart.series]
        return {"kind": "lines", **common, **axes, "grid": _rounded(grid), "series": series}
    if isinstance(chart, Spans):
        spans = [
            {
                "key": s.key,
                "label": s.label,
                "family": s.family,
                "colour": s.colour,
                **{name: _rounded([getattr(s, name)])[0] for name in ("start", "end", "lower", "upper")},
            }
            for s in chart.spans
        ]
        ends = {"start_label": chart.start_label, "end_label": chart.end_label}
        return {"kind": "spans", **common, "x": _axis(chart.x), **ends, "spans": spans}
    return {"kind": "matrix", **common, **_matrix(chart)}


def _series(series: Series, grid: Floats) -> dict[str, Any]:
    """Return a series; `at` has the places of its x in the grid, and is left out if those are all."""
    at = np.searchsorted(grid, series.x)
    data = {
        "key": series.key,
        "label": series.label,
        "family": series.family,
        "colour": series.colour,
        "dashed": series.dashed,
        "names": None if series.names is None else list(series.names),
        "at": None if np.array_equal(at, np.arange(len(grid))) else at.tolist(),
        "y": _rounded(series.y),
        "lower": None if series.lower is None else _rounded(series.lower),
        "upper": None if series.upper is None else _rounded(series.upper),
    }
    return {name: value for name, value in data.items() if value is not None or name == "colour"}


def _matrix(chart: Matrix) -> dict[str, Any]:
    below = np.tril_indices(len(chart.labels), -1)  # row by row, as the script counts them
    return {
        "labels": list(chart.labels),
        "colours": list(chart.colours),
        "frames": list(chart.frames),
        "values": [
            [None if np.isnan(value) else round(float(value), COSINE_DECIMALS) for value in frame[below]]
            for frame in chart.values
        ],
        "counts": [frame[below].tolist() for frame in chart.counts],
    }


def _missing(reason: str) -> dict[str, str]:
    return {"missing": reason}


def _axis(axis: Axis) -> dict[str, Any]:
    return {
        "label": axis.label,
        "unit": axis.unit,
        "title": axis.title(),
        "log": axis.log,
        "lower": axis.lower,
        "upper": axis.upper,
        "whole": axis.whole,
    }


def _rounded(values: ArrayLike) -> list[float | int]:
    """Return numbers as short as they can be written with `DIGITS` significant digits; whole ones whole."""
    listed = np.asarray(values, dtype=float).tolist()
    numbers = (value if abs(value) >= 10**DIGITS else float(f"{value:.{DIGITS}g}") for value in listed)
    return [int(value) if value.is_integer() else value for value in numbers]
