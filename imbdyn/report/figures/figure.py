"""A figure: its name, how it is read, and the function from a run to a chart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from imbdyn.report.figures.chart import Chart
from imbdyn.report.figures.source import Source

#: The values that each choice of a figure may have on a run; the first is the default.
Choices = dict[str, list[str]]


@dataclass(frozen=True)
class Figure:
    """One figure of the page, and of `trace.plot`."""

    name: str
    title: str
    reading: str
    """How it is read, in a sentence or two."""
    draw: Callable[..., Chart]
    """From a `Source` and a value for each choice to a chart. Raises NothingToDrawError."""
    choices: Callable[[Source], Choices] = lambda _: {}
    compared: Literal["difference", "ratio"] | None = None
    """How two runs are set against each other, curve by curve; None where that says nothing."""

    def chart(self, source: Source, **chosen: Any) -> Chart:
        """Return the chart of a run; what is not chosen has its default.

        Raises:
            NothingToDrawError: if the run does not have what is shown.
            ValueError: for a choice or a value that there is not.
        """
        choices = self.choices(source)
        unknown = [name for name in chosen if name not in choices]
        if unknown:
            raise ValueError(f"{self.name} has the choices {', '.join(choices) or 'none'}, not {', '.join(unknown)}")
        for name, value in chosen.items():
            if value not in choices[name]:
                raise ValueError(f"{name} is one of {', '.join(choices[name]) or 'none'}, got {value!r}")
        return self.draw(source, **{name: values[0] for name, values in choices.items() if values} | chosen)
