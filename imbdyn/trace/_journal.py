"""The journal: segments to which each commit is appended as one record, in one write.

What was written survives the death of the process, since it is in the page cache; `sync` makes it survive a power cut.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from imbdyn.trace._format import JOURNAL_MAGIC, RECORD_HEADER

#: Bytes of the largest commit. Linux writes less than 2 GiB at once.
MAX_RECORD_BYTES = 1 << 30


class Segment:
    """A segment that is being written.

    Args:
        path: which must not exist; its folder must.
        schema_message: payload of the first record.

    Raises: OSError if it cannot be made; then there is no file.
    """

    def __init__(self, path: Path, schema_message: bytes) -> None:
        self.path = path
        #: Bytes of whole records; behind them stands nothing, or what a write that failed has left.
        self.size = 0
        #: Number of its last record.
        self.last_record = 0
        self.synced = False
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            self._write(JOURNAL_MAGIC + record_header(schema_message) + schema_message)
        except BaseException:
            self.close()
            with suppress(OSError):
                path.unlink()
            raise

    def append(self, record: int, payload: bytes) -> None:
        """Append record number `record`. After an error the segment ends where it did before, or `recover` says so."""
        self._write(record_header(payload), payload)
        self.last_record = record
        self.synced = False

    def holds(self, length: int) -> bool:
        """Tell whether an append of `length` bytes of payload that was interrupted is whole, and take it as such."""
        whole = self.size + RECORD_HEADER.size + length
        if os.fstat(self._descriptor).st_size != whole:
            return False
        self.size = whole
        return True

    def sync(self) -> None:
        """Put on disk what was written."""
        if not self.synced:
            self.synced = True  # first: what is appended meanwhile makes it false again
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file; may be called again."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def _write(self, *pieces: bytes) -> None:
        length = sum(map(len, pieces))
        written = -1
        try:
            written = os.writev(self._descriptor, pieces)
        finally:
            # An interrupt after the write has come too late to undo it: `holds` will find it whole.
            if 0 <= written < length:
                os.ftruncate(self._descriptor, self.size)
        if written < length:
            raise OSError(28, os.strerror(28), str(self.path))  # a file is written in part only if the disk is full
        self.size += length


def record_header(payload: bytes) -> bytes:
    """Return what stands before a record's payload."""
    return RECORD_HEADER.pack(len(payload), zlib.crc32(payload))


def whole_payloads(segment: bytes) -> Iterator[bytes]:
    """Yield the payloads of a segment's records up to the first that is cut short or damaged."""
    if not segment.startswith(JOURNAL_MAGIC):
        return
    position = len(JOURNAL_MAGIC)
    while position + RECORD_HEADER.size <= len(segment):
        length, crc = RECORD_HEADER.unpack_from(segment, position)
        start = position + RECORD_HEADER.size
        payload = segment[start : start + length]
        if len(payload) < length or zlib.crc32(payload) != crc:
            return
        yield payload
        position = start + length


def read_segment(path: Path) -> pa.Table | None:
    """Return the commits of a segment, up to the first record that is cut short or damaged; None if there are none."""
    payloads = list(whole_payloads(path.read_bytes()))
    if not payloads:
        return None
    return pa.ipc.open_stream(pa.BufferReader(b"".join(payloads))).read_all()


def rows_of(commits: pa.Table, table: str) -> pa.Table:
    """Return one table's rows of some commits, with plain names."""
    lists = commits[table].combine_chunks()
    return pa.Table.from_struct_array(lists.flatten())
