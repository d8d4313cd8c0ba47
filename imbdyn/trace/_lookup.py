"""Look a name up among the known ones; a wrong one gets the nearest in its error."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar

from imbdyn.trace.schema import TABLES, Table

_T = TypeVar("_T")


class UnknownNameError(KeyError):
    """A name that is not among the known ones. (A bare KeyError prints its message in quotes.)"""

    def __str__(self) -> str:
        return str(self.args[0])


def look_up(what: str, name: str, known: Mapping[str, _T]) -> _T:
    """Return known[name], or raise UnknownNameError with the nearest name."""
    try:
        return known[name]
    except KeyError:
        nearest = get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise UnknownNameError(f"there is no {what} {name!r}; the nearest name is {nearest!r}") from None


def look_up_table(name: str) -> Table:
    """Return the table of that name. Every path inside a trace is made from a name that passed through here."""
    return look_up("table", name, TABLES)
