"""Time spent in the instrument."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter


class Stopwatch:
    """`with stopwatch:` reports the seconds of the block; of nested blocks, those of the outermost."""

    def __init__(self, report: Callable[[float], None]) -> None:
        self._report = report
        self._depth = 0
        self._started = 0.0

    def __enter__(self) -> None:
        if self._depth == 0:
            self._started = perf_counter()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._report(perf_counter() - self._started)
