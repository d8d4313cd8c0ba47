"""A chart in one sentence: what a screen reader says of it, and what stands below it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from imbdyn.report.figures.chart import Chart, Floats, Lines, Matrix, Spans

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def summary(chart: Chart) -> str:
    """Return what a chart shows at its end, from its numbers."""
    if isinstance(chart, Matrix):
        return _matrix(chart)
    if isinstance(chart, Spans):
        families = dict.fromkeys(span.family for span in chart.spans)
        ends = [(family, [span.end for span in chart.spans if span.family == family]) for family in families]
        return f"Last values, {chart.end_label}: {'; '.join(_range(name, of) for name, of in ends)}."
    return _lines(chart)


def number(value: float) -> str:
    """Return a number with three digits, in powers of ten where people write it so."""
    text = f"{value:.3g}"
    mantissa, _, power = text.partition("e")
    if power:
        text = f"{mantissa}×10{str(int(power)).translate(_SUPERSCRIPTS)}"
    return text.replace("-", "\N{MINUS SIGN}")


def _lines(chart: Lines) -> str:
    drawn = [series for series in chart.series if len(series.x)]
    if any(series.names for series in drawn):
        parts = [_range(series.label, series.y) for series in drawn]
        return f"{'; '.join(parts)}."
    families: dict[str, list[float]] = {}
    for series in reversed(drawn):
        # Few curves are named one by one, of many only the range.
        name = series.label if len(drawn) <= 4 else series.family or series.label
        families.setdefault(name, []).append(float(series.y[-1]))
    ends = "; ".join(_range(name, values) for name, values in families.items())
    return f"Last values: {ends}."


def _matrix(chart: Matrix) -> str:
    size = len(chart.labels)
    values = chart.values[-1][np.tril_indices(size, -1)]
    values = values[np.isfinite(values)]
    if not len(values):
        return f"{size} classes; in the last moment no two were read together."
    return (
        f"In the last moment {np.mean(values < 0):.0%} of {len(values):,} pairs are in conflict (below 0); the median "
        f"cosine is {number(float(np.median(values)))}."
    )


def _range(name: str, values: Iterable[float] | Floats) -> str:
    low, high = number(min(values)), number(max(values))
    return f"{name} {low}" if low == high else f"{name} {low} to {high}"
