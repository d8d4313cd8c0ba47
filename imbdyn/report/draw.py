"""A chart in matplotlib, as it goes into a paper: the same numbers as on the page."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from imbdyn.report.figures.chart import Axis, Chart, Lines, Matrix, Spans
from imbdyn.report.figures.palette import NEGATIVE, NEUTRAL, POSITIVE, colour_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: A legend has at most so many entries.
_MOST_ENTRIES = 12

#: Values are written into the cells of a matrix of up to so many classes.
_MOST_WRITTEN = 12

#: Letters in a line of a y axis' label: more are higher than the axes of a small figure.
_WIDEST_LABEL = 32


def draw(chart: Chart, ax: Axes, title: str, moment: int) -> None:
    """Draw a chart on axes.

    Args:
        chart: what to draw.
        ax: where.
        title: what stands above it.
        moment: of a matrix, which of its frames.
    """
    ax.set_title(title, loc="left")
    if isinstance(chart, Lines):
        _lines(chart, ax)
    elif isinstance(chart, Spans):
        _spans(chart, ax)
    else:
        _matrix(chart, ax, moment)


def _lines(chart: Lines, ax: Axes) -> None:
    for value, label in chart.levels:
        ax.axhline(value, color="0.4", lw=0.8, ls=":", zorder=0)
        ax.annotate(
            label, (1, value), (-2, 2), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
            fontsize="x-small", color="0.3",
        )  # fmt: skip
    receding: set[str] = set()
    for series in chart.series:
        colour, stands_out = colour_of(series.colour), series.colour is not None
        label = _plain(series.label)
        if not stands_out:  # one entry for all that recede
            label = "_" if series.family in receding else series.family
            receding.add(series.family)
        if series.lower is not None and series.upper is not None:
            ax.fill_between(series.x, series.lower, series.upper, color=colour, alpha=0.16, lw=0)
        if series.names is not None:
            ax.plot(series.x, series.y, "o", color=colour, ms=4.5, label=label)
        else:
            marker = "." if len(series.x) <= 12 else ""
            style = "--" if series.dashed else "-"
            ax.plot(series.x, series.y, style, marker=marker, color=colour, lw=1.7 if stands_out else 0.9, label=label)
    _scale(ax, chart.x, chart.y)
    entries = [label for label in ax.get_legend_handles_labels()[1] if not label.startswith("_")]
    if 1 < len(entries) <= _MOST_ENTRIES:
        _legend(ax)


def _spans(chart: Spans, ax: Axes) -> None:
    places = np.arange(len(chart.spans))[::-1]  # the first on top
    for place, span in zip(places, chart.spans, strict=True):
        colour = colour_of(span.colour)
        ax.plot([span.lower, span.upper], [place, place], color=colour, lw=0.9)
        ax.plot([span.start, span.end], [place, place], color=colour, lw=2.6, alpha=0.45)
    colours = [colour_of(span.colour) for span in chart.spans]
    start, end = ([getattr(span, name) for span in chart.spans] for name in ("start", "end"))
    ax.scatter(start, places, facecolors="white", edgecolors=colours, zorder=3, label=chart.start_label)
    ax.scatter(end, places, c=colours, zorder=4, label=chart.end_label)
    ax.set_yticks(places, [_plain(span.label) for span in chart.spans])
    _scale(ax, chart.x, None)
    _legend(ax)


def _matrix(chart: Matrix, ax: Axes, moment: int) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    values = chart.values[moment]
    colours = LinearSegmentedColormap.from_list("conflict", [NEGATIVE, NEUTRAL, POSITIVE]).with_extremes(bad="white")
    image = ax.imshow(values, cmap=colours, vmin=-1, vmax=1)
    labels = [_plain(label) for label in chart.labels]
    if len(labels) <= _MOST_WRITTEN:
        for row, column in np.argwhere(np.isfinite(values)):
            strong = abs(values[row, column]) > 0.55
            text = f"{round(values[row, column], 2) + 0.0:.2f}".replace("0.", ".", 1)  # no "-.00"
            ax.text(column, row, text, ha="center", va="center", fontsize=6, color="white" if strong else "black")
    if len(labels) <= 2 * _MOST_WRITTEN:
        ax.set_xticks(range(len(labels)), labels, rotation=90 if max(map(len, labels)) > 3 else 0)
        ax.set_yticks(range(len(labels)), labels)
    else:
        ax.set_xticks([])
        ax.set_yticks([])
    ax.set_xlabel(chart.frames[moment])
    ax.figure.colorbar(image, ax=ax, label=f"{chart.title} (below 0: conflict)", shrink=0.85)


def _scale(ax: Axes, x: Axis, y: Axis | None) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel(x.title())
    if x.log:
        ax.set_xscale("log")
    elif x.whole:
        ax.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    _limit(ax.set_xlim, x)
    if y is not None:
        ax.set_ylabel(fill(y.title(), _WIDEST_LABEL, break_long_words=False))
        if y.log:
            ax.set_yscale("log")
        _limit(ax.set_ylim, y)


def _limit(set_ends: Callable[[float | None, float | None], Any], axis: Axis) -> None:
    room = 0.02 * (axis.upper - axis.lower) if axis.lower is not None and axis.upper is not None else 0.0
    set_ends(None if axis.lower is None else axis.lower - room, None if axis.upper is None else axis.upper + room)


def _legend(ax: Axes) -> None:
    """Put the legend beside the axes, where it covers nothing."""
    ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.0)


def _plain(text: str) -> str:
    """Return a class name as text.

    matplotlib takes what stands between dollars for mathematics, and leaves what begins with "_" out of a legend.
    """
    return text.replace("$", r"\$").replace("_", " _", 1 if text.startswith("_") else 0)
