"""Commits on their way to disk: into the current segment, or, while the disk takes none, into bounded memory."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import NamedTuple

from imbdyn.trace._format import JOURNAL_FOLDER, SEGMENT_NAME, segment_name
from imbdyn.trace._journal import Segment

#: A segment is closed when it has so many bytes: the sealer holds one in memory.
SEGMENT_BYTES = 16 << 20
#: Closed segments that may wait for the sealer before the writer asks for fewer rows.
WAITING_SEGMENTS = 4
#: Commits that the disk did not take are kept up to so many bytes; beyond it the oldest are dropped, and counted.
BACKLOG_BYTES = 64 << 20


class Commit(NamedTuple):
    """One commit, encoded."""

    record: int
    payload: bytes
    rows: int


class Commits:
    """The journal of one rank as its writer sees it. Its owner sees to it that one thread at a time is in it.

    Args:
        run: the run's folder.
        rank: whose journal it is.
        schema_message: see Segment.
    """

    def __init__(self, run: Path, rank: int, schema_message: bytes) -> None:
        self.dropped_rows = 0
        self.dropped_commits = 0
        #: Closed segments, oldest first; the sealer takes them from the left.
        self.waiting: deque[Segment] = deque()
        #: The segment that commits go to.
        self.current: Segment | None = None
        self._folder = run / JOURNAL_FOLDER
        self._rank = rank
        self._sequence = 1 + max((int(path.stem[5:]) for path in segments_of(run, rank)), default=-1)
        self._schema_message = schema_message
        self._backlog: deque[Commit] = deque()
        self._backlog_bytes = 0
        self._unsettled = False

    @property
    def backlog_rows(self) -> int:
        """Rows that are in memory only."""
        return sum(commit.rows for commit in self._backlog)

    @property
    def backlog_commits(self) -> int:
        """Commits that are in memory only."""
        return len(self._backlog)

    def add(self, commit: Commit) -> None:
        """Take a commit, which is written by the next `write`; one that Ctrl-C has made come twice is taken once."""
        if self._backlog and self._backlog[-1].record == commit.record:
            self._backlog_bytes -= len(self._backlog.pop().payload)
        self._backlog.append(commit)
        self._backlog_bytes += len(commit.payload)
        while self._backlog_bytes > BACKLOG_BYTES and len(self._backlog) > 1:
            self._drop(self._backlog.popleft())

    def write(self) -> None:
        """Write what was taken. Raises: OSError if the disk does not take it; the rest is kept."""
        if self._unsettled:
            self._settle()
        while self._backlog:
            commit = self._backlog[0]
            self._unsettled = True
            try:
                self._segment().append(commit.record, commit.payload)
            except OSError:
                self._settle()
                if self.current is None or self.current.last_record == 0:
                    raise
                # A file may be full (a quota, a limit) where another one is not.
                self.rotate()
                continue
            self._taken()
            if self.current is not None and self.current.size >= SEGMENT_BYTES:
                self.rotate()

    def rotate(self) -> None:
        """Close the current segment, so that it can be sealed."""
        if self.current is not None:
            self.waiting.append(self.current)
            self.current = None

    def pressure(self) -> str | None:
        """Say why fewer rows are wanted; None if all are welcome."""
        if self._backlog:
            return "the disk takes no rows"
        if len(self.waiting) > WAITING_SEGMENTS:
            return f"the disk is slow: {len(self.waiting)} segments of the journal wait to be sealed"
        return None

    def close(self) -> None:
        """Close every file."""
        self.rotate()
        for segment in self.waiting:
            segment.close()

    def _segment(self) -> Segment:
        if self.current is None:
            sequence = self._sequence
            self._sequence += 1  # first: what an interrupt leaves of a new segment is in nobody's way
            self._folder.mkdir(exist_ok=True)
            self.current = Segment(self._folder / segment_name(self._rank, sequence), self._schema_message)
        return self.current

    def _settle(self) -> None:
        """Find out what became of a write that failed, or in which Ctrl-C came."""
        if self._backlog and self.current is not None:
            try:
                if self.current.settle(self._backlog[0].record, self._backlog[0].payload):
                    self._taken()
            except OSError:
                # What stands behind its whole records cannot be removed, so nothing may follow it.
                self.rotate()
        self._unsettled = False

    def _taken(self) -> None:
        self._backlog_bytes -= len(self._backlog.popleft().payload)
        self._unsettled = False

    def _drop(self, commit: Commit) -> None:
        self._backlog_bytes -= len(commit.payload)
        self.dropped_rows += commit.rows
        self.dropped_commits += 1


def segments_of(run: Path, rank: int | None = None) -> list[Path]:
    """Return the segments of the journal, of one rank or of all, in the order in which they were written."""
    folder = run / JOURNAL_FOLDER
    names = [p for p in folder.iterdir() if SEGMENT_NAME.fullmatch(p.name)] if folder.is_dir() else []
    return sorted(path for path in names if rank is None or int(path.name[:4]) == rank)
