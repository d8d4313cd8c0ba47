"""Rows whose numbers are still on their way: written when they have come, step by step, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from imbdyn.monitor import arrivals
from imbdyn.monitor.arrivals import Arrival
from imbdyn.monitor.window import Window, added
from imbdyn.trace import TraceWriter

Numbers = list[NDArray[np.float64]]

#: So many commits may be on their way; then the host waits for the oldest, and its memory stays bounded.
MOST_UNDERWAY = 2


@dataclass(eq=False)
class _Commit:
    """The rows of one step, or of a window that was closed between sampled steps."""

    tensors: list[Tensor] = field(default_factory=list)
    parts: list[tuple[slice, Callable[[Numbers], None]]] = field(default_factory=list)
    """Which of the tensors are whose, and who makes rows of their numbers."""
    window: Window | None = None
    arrival: Arrival | None = None
    numbers: Numbers | None = None
    begun_at: int | None = None
    """How many commits the writer had taken when this one was begun."""

    def sums(self) -> NDArray[np.float64] | None:
        """Return the sums of the window, with those of earlier ones; what has not come is lost."""
        assert self.window is not None
        own = None
        if self.numbers is not None:
            own = self.numbers[[t is self.window.sums for t in self.tensors].index(True)]
        elif self.arrival is None:
            own = self.window.sums.cpu().numpy()
        return added(self.window.before, own)


class DeferredRows:
    """Gathers what a step has to say; `commit` sends it off, and writes what has come.

    On the CPU all numbers have come at once, so that a step's rows are written by its own commit.

    Args:
        writer: takes the rows.
        put_back: given first step and sums of a window that could not be written, and that nothing behind it takes on.
    """

    def __init__(self, writer: TraceWriter, put_back: Callable[[int, NDArray[np.float64] | None], None]) -> None:
        self._writer = writer
        self._put_back = put_back
        self._open: _Commit | None = None
        self._underway: deque[_Commit] = deque()

    @property
    def underway(self) -> int:
        """How many commits are on their way."""
        return len(self._underway)

    def add(self, tensors: Sequence[Tensor], write: Callable[[Numbers], None], window: Window | None = None) -> None:
        """Add rows to the coming commit.

        Args:
            tensors: what they are made of; must not be written to before the work that is queued now is done.
            write: appends the rows to the writer, given the numbers of the tensors.
            window: whose sums are among the tensors.
        """
        if self._open is None:
            self._open = _Commit()
        first = len(self._open.tensors)
        self._open.tensors += tensors
        self._open.parts.append((slice(first, first + len(tensors)), write))
        self._open.window = window or self._open.window

    def commit(self) -> None:
        """Send off what was added, write and commit what has come, and commit what was appended to the writer itself.

        Raises: what the writer raises. The commit that met it is not tried again: a window's sums are taken on.
        """
        if self._open is not None:
            self._open.arrival = arrivals.send(self._open.tensors)
            self._underway.append(self._open)
            self._open = None
        while self._underway:
            arrival = self._underway[0].arrival
            if len(self._underway) <= MOST_UNDERWAY and arrival is not None and not arrival.has_come():
                break
            self._write_next()
        self._writer.commit()

    def drain(self) -> None:
        """Write all that is on its way, waiting for it. Raises: as `commit`."""
        while self._underway:
            self._write_next()

    def rollback(self) -> None:
        """Forget what was added since the last commit."""
        commit, self._open = self._open, None
        if commit is not None and commit not in self._underway:
            self._forget(commit)

    def _write_next(self) -> None:
        commit = self._underway[0]
        try:
            # else Ctrl-C came between its commit and here
            if commit.begun_at is None or self._writer.commits == commit.begun_at:
                assert commit.arrival is not None
                commit.numbers = commit.arrival.numbers()
                commit.begun_at = self._writer.commits
                for own, write in commit.parts:
                    write(commit.numbers[own])
                self._writer.commit()
        except BaseException:
            self._underway.popleft()
            if commit.begun_at is None or self._writer.commits == commit.begun_at:
                self._writer.rollback()
                self._forget(commit)
            raise
        self._underway.popleft()

    def _forget(self, commit: _Commit) -> None:
        """Let the next window have the steps of this one's."""
        if commit.window is None:
            return
        sums = commit.sums()
        behind = [later.window for later in self._underway if later is not commit and later.window is not None]
        if behind:
            behind[0].since = commit.window.since
            behind[0].before = added(behind[0].before, sums)
        else:
            self._put_back(commit.window.since, sums)
