"""`trace.plot`: the figures of the page in matplotlib."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from imbdyn.report.figures import FIGURES, Figure, Source
from imbdyn.report.figures.chart import Chart, Matrix
from imbdyn.trace._lookup import look_up

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from imbdyn.trace import Trace


class Plot:
    """Draws figures of one run: `trace.plot.recall(split="test")`, on axes of one's own as `recall(ax)`.

    Each takes the choices that the page offers, by name (`split`, `parameter`, `over`, `of`, `measure`), and returns
    the axes. What is thinned or left out is in the `notes` of its chart: `trace.plot.chart("recall")`.
    """

    def __init__(self, trace: Trace) -> None:
        self._source = Source(trace)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *FIGURES]

    def __getattr__(self, name: str) -> Callable[..., Axes]:
        if name.startswith("_") or name not in FIGURES:
            raise AttributeError(f"there is no figure {name!r}; there are {', '.join(FIGURES)}")
        figure = FIGURES[name]
        method = partial(self._draw, figure)
        method.__doc__ = f"{figure.title}. {figure.reading}"
        return method

    def chart(self, name: str, **choices: str) -> Chart:
        """Return the numbers of a figure: a `Lines`, `Spans` or `Matrix`.

        Raises: KeyError for an unknown figure, NothingToDrawError (a ValueError) if the run does not have them.
        """
        return look_up("figure", name, FIGURES).chart(self._source, **choices)

    def _draw(self, figure: Figure, ax: Axes | None = None, *, moment: int = -1, **choices: str) -> Axes:
        """Draw one figure, of a matrix the moment with that position (the last one by default)."""
        from imbdyn.report.draw import draw

        chart = figure.chart(self._source, **choices)
        if ax is None:
            ax = _new_axes(isinstance(chart, Matrix))
        draw(chart, ax, figure.title, moment)
        return ax


def _new_axes(square: bool) -> Axes:
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("trace.plot needs matplotlib: pip install 'imbdyn[plot]'", name=error.name) from None
    _, ax = plt.subplots(figsize=(5.6, 4.6) if square else (6.4, 3.2), layout="constrained")
    ax.spines[["top", "right"]].set_visible(square)
    return ax
