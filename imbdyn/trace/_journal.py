"""The journal: segments to which each commit is appended as one record, in one write.

What was written survives the death of the process, since it is in the page cache; `sync` makes it survive a power cut.
"""

from __future__ import annotations

import os
import zlib
from contextlib import suppress
from pathlib import Path

from imbdyn.trace._files import sync_folder
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
        self.synced = False
        self._name_synced = False
        # Size of whole records, and number of the last one: one attribute, so that an interrupt changes both or none.
        self._end = (0, 0)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            self._write(0, JOURNAL_MAGIC + record_header(schema_message) + schema_message)
        except BaseException:
            self.close()
            with suppress(OSError):
                path.unlink()
            raise

    @property
    def size(self) -> int:
        """Bytes of the file that are whole records; behind them stands at most what a write that failed has left."""
        return self._end[0]

    @property
    def last_record(self) -> int:
        """Number of the last record; 0 if there is none."""
        return self._end[1]

    def append(self, record: int, payload: bytes) -> None:
        """Append record number `record`. After an error or an interrupt `settle` says whether it is there."""
        self._write(record, record_header(payload), payload)

    def settle(self, record: int, payload: bytes) -> bool:
        """Tell whether an append that did not return has written its record; if not, remove what it has left."""
        if self.last_record == record:
            return True
        whole = self.size + RECORD_HEADER.size + len(payload)
        if os.fstat(self._descriptor).st_size == whole:
            self._end = (whole, record)
            return True
        os.ftruncate(self._descriptor, self.size)
        return False

    def sync(self) -> None:
        """Put on disk what was written."""
        if not self.synced:
            self.synced = True  # first: what is appended meanwhile makes it false again
            try:
                os.fsync(self._descriptor)
            except OSError:
                self.synced = False
                raise
        if not self._name_synced:
            sync_folder(self.path.parent)
            self._name_synced = True

    def read(self) -> bytes:
        """Return the whole records with what stands before them, even if the file was removed meanwhile."""
        return os.pread(self._descriptor, self.size, 0)

    def close(self) -> None:
        """Close the file; may be called again."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def _write(self, record: int, *pieces: bytes) -> None:
        length = sum(map(len, pieces))
        written = os.writev(self._descriptor, pieces)
        if written < length:  # a disk that is all but full takes a part, and says why when it is given the rest
            rest = memoryview(b"".join(pieces))
            while written < length:
                written += os.write(self._descriptor, rest[written:])
        self._end = (self.size + length, record)
        self.synced = False


def record_header(payload: bytes) -> bytes:
    """Return what stands before a record's payload."""
    return RECORD_HEADER.pack(len(payload), zlib.crc32(payload))
