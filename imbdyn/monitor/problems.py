"""A failure of the instrument never stops training: one warning a kind, and a record of all of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
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

    @contextmanager
    def contained(self, doing: str) -> Iterator[None]:
        """Run a part of the instrument whose failure training must survive."""
        try:
            yield
        except ImbdynWarning:
            raise  # the user has made warnings errors
        except Exception as error:
            if self._on_error == "raise":
                raise
            self.warn(
                f"{doing}: {type(error).__name__}",
                f"imbdyn failed while {doing} and training goes on: {type(error).__name__}: {error}",
            )

    def record(self) -> dict[str, dict[str, object]]:
        """Return kind -> {"message", "times"} for run.json."""
        return self._seen
