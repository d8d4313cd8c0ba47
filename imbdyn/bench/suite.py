"""A table of `imbdyn bench`: cases that are measured one after the other, a line each, at most 80 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass

WIDTH = 80

#: Numbers of one case by name: times and ratios.
Measured = dict[str, float]


@dataclass(frozen=True)
class Suite:
    """Cases with one way to measure and to show them."""

    names: tuple[str, ...]
    """Of the cases."""
    measure: Callable[[str, float], Measured]
    """Measures the case of that name for about so many seconds."""
    heading: str
    line: Callable[[str, Measured], str]
    """A case's name and numbers as a line below the heading."""
    legend: str
    as_json: Callable[[dict[str, Measured]], dict[str, object]]
    """The fields of a result, of the numbers by case."""

    def matching(self, text: str) -> list[str]:
        """Return the names that contain `text`, in whatever case it is written."""
        return [name for name in self.names if text.lower() in name.lower()]

    def run(
        self,
        names: Iterable[str],
        seconds: float,
        say: Callable[[str], None],
        before: Callable[[str], None] = lambda name: None,  # noqa: ARG005
    ) -> dict[str, Measured]:
        """Measure cases and show the table while it grows.

        Args:
            names: of the cases.
            seconds: about how long each may take; it takes longer where a few rounds do.
            say: shows a line or paragraph.
            before: called with the name of a case that is about to be measured.

        Returns:
            the numbers by case.
        """
        results = {}
        say(self.heading)
        for name in names:
            before(name)
            results[name] = self.measure(name, seconds)
            say(self.line(name, results[name]))
        say("\n" + textwrap.fill(self.legend, WIDTH))
        return results


def duration(seconds: float) -> str:
    """Show a time with three digits, in the unit that suits it."""
    scale, unit = (1, "s") if seconds >= 1 else (1e3, "ms") if seconds >= 1e-3 else (1e6, "us")
    value = scale * seconds
    decimals = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{decimals}f} {unit}"


def ratio(value: float) -> str:
    """Show a ratio with two decimals; one below 0.1, which would lose its digits, with two digits."""
    return f"{value:.2f}x" if value >= 0.1 else f"{value:.2g}x"
