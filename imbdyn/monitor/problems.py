"""A failure of the instrument never stops training: one warning a kind, and a record of all of them."""

from __future__ import annotations

import warnings
from types import TracebackType
from typing import Literal


class ImbdynWarning(UserWarning):
    """Something that the trace cannot show, or cannot show exactly."""


class Problems:
    """Keeps count of what went wrong, by kind.

    Args:
        on_error: "warn" turns a failure of the instrument into a warning; "raise" lets it through.
    """

    def __init__(self, on_error: Literal["warn", "raise"]) -> None:
        if on_error not in ("warn", "raise"):
            raise ValueError(f'on_error must be "warn" or "raise", got {on_error!r}')
        self._on_error = on_error
        self._seen: dict[str, dict[str, object]] = {}

    def warn(self, kind: str, message: str) -> None:
        """Count a problem; the first of its kind is a warning."""
        if kind in self._seen:
            self._seen[kind]["times"] = int(str(self._seen[kind]["times"])) + 1
            return
        self._seen[kind] = {"message": message, "times": 1}
        warnings.warn(message, ImbdynWarning, stacklevel=4)

    def contained(self, doing: str) -> Contained:
        """Return the context of a part of the instrument whose failure training must survive."""
        return Contained(self, doing)

    def survive(self, doing: str, error: Exception) -> bool:
        """Warn of a failure and return True, or return False if it is to be raised."""
        if self._on_error == "raise" or isinstance(error, ImbdynWarning):  # the latter: warnings were made errors
            return False
        self.warn(
            f"{doing}: {type(error).__name__}",
            f"imbdyn failed while {doing} and training goes on: {type(error).__name__}: {error}",
        )
        return True

    def record(self) -> dict[str, dict[str, object]]:
        """Return kind -> {"message", "times"} for run.json."""
        return self._seen


class Contained:
    """A context that survives an Exception inside it, as `Problems.survive` decides.

    A class, not a generator: it is entered several times a step, at a third of the cost.
    """

    __slots__ = ("_doing", "_problems")

    def __init__(self, problems: Problems, doing: str) -> None:
        self._problems = problems
        self._doing = doing

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return isinstance(error, Exception) and self._problems.survive(self._doing, error)
