"""Write a trace: rows wait in memory and are sealed into Parquet parts that appear whole or not at all."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from imbdyn import __version__
from imbdyn.trace._buffer import RowBuffer
from imbdyn.trace._claim import claim_folder
from imbdyn.trace._files import part_name, sync_folder, whole_file
from imbdyn.trace._lookup import look_up_table
from imbdyn.trace.run_file import encode_run, write_run
from imbdyn.trace.schema import SCHEMA_VERSION, TABLES

#: Waiting rows, of all tables together, at which maybe_flush does not wait for the clock.
FLUSH_ROWS = 200_000
#: Rows that a table keeps after a flush that failed; older ones are dropped and counted. At most 65 MB a table.
MAX_WAITING_ROWS = 500_000

_STATUS = ("finished", "interrupted", "failed")


class TraceWriter:
    """The one writer of a trace.

    Args:
        out: the run's folder; made here. It must not exist, or be empty.
        force: replace the trace that is in `out`. Nothing but a trace is ever removed.
        flush_seconds: maybe_flush writes when this much time has passed since the last flush.

    Raises: FileExistsError if `out` holds anything (with `force`: anything but a trace), OSError if it cannot be made.
    """

    def __init__(self, out: str | os.PathLike[str], *, force: bool = False, flush_seconds: float = 10.0) -> None:
        self.path = Path(out).absolute()
        #: Rows lost because the disk could not take them; also in run.json.
        self.dropped_rows = 0
        claim_folder(self.path, force=force)
        self._flush_seconds = flush_seconds
        self._flush_at_rows = FLUSH_ROWS
        self._last_flush = monotonic()
        self._closed = False
        self._buffers = {name: RowBuffer(table) for name, table in TABLES.items()}
        self._run: dict[str, Any] = {}
        self.update_run(
            schema_version=SCHEMA_VERSION,
            status="running",
            imbdyn=__version__,
            started=_now(),
            ended=None,
            flush_seconds=flush_seconds,
            dropped_rows=0,
        )

    @property
    def waiting_rows(self) -> int:
        """Number of rows, of all tables, that no part holds yet."""
        return sum(buffer.rows for buffer in self._buffers.values())

    def append(self, table: str, **columns: Any) -> None:
        """Add rows to a table. Values are copied: the caller may go on to change its arrays.

        A column is an array or sequence [n], all of one length, or a scalar, which is broadcast; all scalars make one
        row. Absent is None (the whole column), a masked element of a numpy.ma array, or a column that is not given:
        all become null. NaN is a value and stays NaN.

        Raises: KeyError for an unknown table or column, ValueError for unequal lengths or a null in the key, TypeError
            for values of another kind (a float in an integer column, say). After an error no row was added.
        """
        if self._closed:
            raise ValueError(f"the trace {self.path} is closed")
        look_up_table(table)
        self._buffers[table].append(columns)

    def flush_due(self) -> bool:
        """Whether `flush_seconds` have passed since the last flush, or FLUSH_ROWS rows wait."""
        return monotonic() - self._last_flush >= self._flush_seconds or self.waiting_rows >= self._flush_at_rows

    def maybe_flush(self) -> None:
        """Flush if that is due; else return at once."""
        if self.flush_due():
            self.flush()

    def flush(self) -> None:
        """Seal the waiting rows into one part a table.

        Raises: OSError if a part could not be written. Its rows wait for the next flush, up to MAX_WAITING_ROWS a
            table; older ones are dropped and counted in `dropped_rows`. The other tables were written all the same.
        """
        failure: OSError | None = None
        for name, buffer in self._buffers.items():
            try:
                self._write_part(buffer)
            except OSError as error:
                failure = failure or error
                self._keep_newest(name)
        self._last_flush = monotonic()
        self._flush_at_rows = self.waiting_rows + FLUSH_ROWS  # a full disk is not tried again at every step
        if failure is not None:
            raise failure
        if self.dropped_rows != self._run["dropped_rows"]:
            self.update_run(dropped_rows=self.dropped_rows)

    def update_run(self, **fields: Any) -> None:
        """Set fields of run.json, which is replaced whole.

        Raises: TypeError or ValueError for what JSON cannot hold (then nothing is set), OSError if it cannot be
            written (then the next update writes these fields too).
        """
        run = {**self._run, **fields}
        encoded = encode_run(run)
        self._run = run
        write_run(self.path, encoded)

    def close(self, status: Literal["finished", "interrupted", "failed"]) -> None:
        """Flush, then write how the run ended to run.json. Does nothing once that has succeeded.

        Raises: OSError if rows could not be written. They are counted as dropped; close may be called again.
        """
        if status not in _STATUS:
            raise ValueError(f"status must be one of {', '.join(_STATUS)}, got {status!r}")
        if self._closed:
            return
        try:
            self.flush()
        finally:
            self.update_run(status=status, ended=_now(), dropped_rows=self.dropped_rows + self.waiting_rows)
        self._closed = True

    def _write_part(self, buffer: RowBuffer) -> None:
        if not buffer.rows:
            return
        # Encoded in memory first, so that under the part's name there is one write, which succeeds or not.
        encoded = pa.BufferOutputStream()
        pq.write_table(buffer.to_arrow(), encoded, compression="zstd")
        folder = self.path / buffer.table.name
        if not folder.is_dir():
            folder.mkdir(parents=True)
            sync_folder(self.path)
        with whole_file(folder / part_name(buffer.part)) as file:
            file.write(encoded.getvalue())
        # One assignment: an interrupt before it writes the same part again, one after it finds nothing to write.
        self._buffers[buffer.table.name] = RowBuffer(buffer.table, buffer.part + 1)

    def _keep_newest(self, name: str) -> None:
        buffer = self._buffers[name]
        if buffer.rows > MAX_WAITING_ROWS:
            self._buffers[name] = buffer.newest(MAX_WAITING_ROWS)
            self.dropped_rows += buffer.rows - MAX_WAITING_ROWS


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
