"""Read a trace again and again while its run goes on: each part once, and what is in the journal then."""

from __future__ import annotations

import os
from pathlib import Path
from socket import gethostname
from time import monotonic, time

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from imbdyn.trace._lookup import look_up_table
from imbdyn.trace._parts import NO_LABELS
from imbdyn.trace._plain import plain_schema
from imbdyn.trace._snapshot import Snapshot
from imbdyn.trace._writing import is_written_here
from imbdyn.trace.reader import Trace, as_frame, select

#: A run of which nothing was written for so many seconds, or for so large a part of its time, is given up: the journal
#: is written to at least every ten seconds or step, and a part is sent to a store after every hundredth of the time.
SILENT_SECONDS, SILENT_SHARE = 600.0, 0.03


class LiveTrace(Trace):
    """A trace that stands still between two calls of `refresh`, each of which reads only what is new.

        trace = imbdyn.trace.LiveTrace("runs/mine")
        while trace.run["status"] == "running" and not trace.is_abandoned():
            if trace.refresh():
                print(trace.steps.tail(1))
            time.sleep(2)

    It is frozen, and keeps in memory every row that was asked for. Findings of it cost what they compute.

    Args:
        place: folder or URI of one run; a list or a pattern is for `open_trace`.

    Raises:
        NoTraceError: if there is no trace (yet).
        TraceError: if its run.json cannot be read, or was written by a newer imbdyn.
        OSError: if a store does not answer.
    """

    def __init__(self, place: str | os.PathLike[str]) -> None:
        super().__init__(place)
        #: When it was last seen that something was written, by the clock `time.monotonic`.
        self.changed_at = monotonic()
        self._kept = {}
        self._files = self._folder.written()
        self.run = self._folder.read_run()  # again, after the list: else a change between the two were never seen
        self._grown: dict[str, _Grown] = {}
        self._was_written_here = False

    def refresh(self) -> bool:
        """Take note of what was written since the last time, and tell whether it was anything.

        Raises: NoTraceError if the trace is gone, as `Trace` else.
        """
        files = self._folder.written()
        if files == self._files:
            return False
        self.run = self._folder.read_run()
        self.has_ranks = self._folder.has_ranks()
        self._kept, self._files, self.changed_at = {}, files, monotonic()
        return True

    def is_abandoned(self) -> bool:
        """Tell whether the run says that it goes on, and nobody seems to write it any more.

        A process of this machine that was seen to write it does so no more; or nothing was written for ten minutes, or
        3% of its time if that is longer.
        """
        if self.run["status"] != "running":
            return False
        if is_written_here(self._written_to()):
            self._was_written_here = True
            return False
        times = [written / 1e9 for _, written in self._files.values()] or [0.0]
        silent = time() - max(times) > max(SILENT_SECONDS, SILENT_SHARE * (max(times) - min(times)))
        # Again: it may have ended since.
        return (self._was_written_here or silent) and self._folder.read_run()["status"] == "running"

    def _written_to(self) -> Path:
        """Return the folder that the run is written to, if that is on this machine."""
        staging = self.run.get("staging")
        if isinstance(staging, dict) and staging.get("host") == gethostname():
            return Path(str(staging.get("path")))
        return Path(self._folder.root)

    def _made(self, name: str, filter: ds.Expression | None) -> pd.DataFrame:
        if self.has_ranks:  # their rows are sorted by rank, and a rank that joins adds a column
            return super()._made(name, filter)
        key = f"{name} where {filter}"
        if key not in self._grown:
            self._grown[key] = _Grown(self, name, filter)
        return self._grown[key].rows()


class _Grown:
    """The rows of a table, of which those in parts are kept."""

    def __init__(self, trace: Trace, name: str, filter: ds.Expression | None) -> None:
        self._trace, self._table, self._filter = trace, look_up_table(name), filter
        self._schema = plain_schema(self._table)
        self._sealed = self._frame([])
        self._parts = frozenset[tuple[str, int | None]]()

    def rows(self) -> pd.DataFrame:
        """Return what there is now, sorted by the key."""
        snapshot = self._trace._snapshot(self._table)
        self._add_parts(snapshot)
        journal = [select(rows, None, self._filter) for rows in snapshot.journal.values()]
        return self._joined(self._sealed, self._frame(journal))

    def _add_parts(self, snapshot: Snapshot) -> None:
        pieces = {(piece.part.name, piece.limit): piece for piece in snapshot.pieces}
        sealed, known = self._sealed, self._parts
        if not known <= pieces.keys():  # some were merged into another, or superseded when the run was resumed
            sealed, known = sealed.iloc[:0], frozenset()
        new = [
            self._trace._read(piece, group, self._schema.names, self._filter, NO_LABELS)
            for name, piece in pieces.items()
            if name not in known
            for group in piece.groups(self._filter, NO_LABELS)
        ]
        self._sealed, self._parts = self._joined(sealed, self._frame(new)), frozenset(pieces)

    def _frame(self, tables: list[pa.Table]) -> pd.DataFrame:
        return as_frame(pa.concat_tables([self._schema.empty_table(), *tables]))

    def _joined(self, old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
        """Return both, sorted by the key, as `old` is. Only the rows of `old` from the first new step on are moved."""
        if new.empty:
            return old
        stay = int(old["step"].searchsorted(new["step"].min()))
        moved = pd.concat([old.iloc[stay:], new]).sort_values([*self._table.key])
        return pd.concat([old.iloc[:stay], moved], ignore_index=True)
