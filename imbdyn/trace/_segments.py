"""Read the journal: the records of a segment up to the first that is not as it was written.

A segment may come from a stranger. So lengths are checked against the file before anything is allocated, compressed
records, which could be bombs, are refused, and every array is validated before it is computed with.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from imbdyn.trace._damage import UntrustedError
from imbdyn.trace._format import JOURNAL_MAGIC, RECORD, RECORD_HEADER
from imbdyn.trace._plain import conform
from imbdyn.trace.schema import TABLES, Table

#: Bytes of a segment that a reader takes into memory. Writers seal a segment long before.
MAX_SEGMENT_BYTES = 1 << 30

_SCHEMA, _RECORD_BATCH = 1, 3  # MessageHeader of Arrow's Message.fbs
_CONTINUATION = 0xFFFFFFFF
#: Where a message's metadata begins: behind 0xFFFFFFFF and its length.
_MESSAGE = 8


@dataclass
class SegmentRecords:
    """The valid prefix of a segment: the payload of the schema, and those of the commits."""

    schema: bytes = b""
    commits: list[bytes] = field(default_factory=list)
    #: Where the valid prefix ends.
    valid_bytes: int = 0
    total_bytes: int = 0
    #: Why it ends there; None if that is the end of the file.
    problem: str | None = None
    #: Whether it ends there because the file does, as it does while a record is being written.
    cut_short: bool = False

    def rows(self, table: Table, after: int) -> pa.Table:
        """Return the rows of one table in the commits whose record number is above `after`, with plain names.

        Raises: UntrustedError if a record holds something else than a commit.
        """
        lists = []
        last = 0
        for batch in self._batches(table.name):
            number = record_number(batch)
            if number <= last:
                raise UntrustedError(f"record {number} comes after record {last}")
            last = number
            if number > after and table.name in batch.schema.names:
                lists.append(batch.column(table.name))
        if not lists:
            return conform(table, None)
        try:
            rows = pc.list_flatten(pa.chunked_array(lists)).combine_chunks()
        except (pa.ArrowException, TypeError) as error:
            raise UntrustedError(f"{table.name} is no list of rows: {error}") from None
        if not pa.types.is_struct(rows.type) or rows.null_count:
            raise UntrustedError(f"{table.name} is no list of rows")
        return conform(table, pa.Table.from_struct_array(rows))

    def records(self) -> list[int]:
        """Return the numbers of the commits. Raises: UntrustedError as `rows`."""
        return [record_number(batch) for batch in self._batches(RECORD)]

    def check(self) -> list[int]:
        """Decode everything, and return the numbers of the commits. Raises: UntrustedError as `rows`."""
        for table in TABLES.values():
            self.rows(table, after=0)
        return self.records()

    def trusted_commits(self) -> pa.Table | None:
        """Return all commits as they stand, None if there are none: for those this process wrote, or `check` passed."""
        if not self.commits:
            return None
        return pa.ipc.open_stream(pa.BufferReader(b"".join([self.schema, *self.commits]))).read_all()

    def _batches(self, name: str) -> Iterator[pa.RecordBatch]:
        """Decode the record number and one more field of each commit."""
        if not self.commits:
            return
        for payload in (self.schema, *self.commits):
            _check_message(payload)
        try:
            schema = pa.ipc.read_schema(pa.BufferReader(self.schema))
            wanted = [i for i, known in enumerate(schema.names) if known in (RECORD, name)]
            options = pa.ipc.IpcReadOptions(included_fields=wanted, use_threads=False)
            stream = pa.ipc.open_stream(pa.BufferReader(b"".join([self.schema, *self.commits])), options=options)
            for batch in stream:
                batch.validate(full=True)
                yield batch
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, UntrustedError):
                raise
            raise UntrustedError(f"a record is no Arrow message: {error}") from None


def parse_segment(data: bytes) -> SegmentRecords:
    """Split a segment into its payloads, up to the first record that is cut short or whose crc32 differs."""
    segment = SegmentRecords(total_bytes=len(data))
    if not data:  # of a process that was killed when it had just made the file: nothing was written, nothing is lost
        return segment
    if not data.startswith(JOURNAL_MAGIC):
        segment.cut_short = JOURNAL_MAGIC.startswith(data)
        segment.problem = "it ends within its first bytes" if segment.cut_short else "it is no journal segment"
        return segment
    position = len(JOURNAL_MAGIC)
    while position < len(data):
        segment.valid_bytes = position
        payload = whole_payload(data, position)
        if payload is None:
            segment.cut_short = _ends_within(data, position)
            what = "is cut short" if segment.cut_short else "is damaged"
            segment.problem = f"its record at byte {position} {what}"
            return segment
        if segment.schema:
            segment.commits.append(payload)
        else:
            segment.schema = payload
        position += RECORD_HEADER.size + len(payload)
    segment.valid_bytes = position
    return segment


def whole_payload(data: bytes, position: int) -> bytes | None:
    """Return the payload of the record at `position`, or None if none stands there whole and as it was written."""
    if position + RECORD_HEADER.size > len(data):
        return None
    length, crc = RECORD_HEADER.unpack_from(data, position)
    start = position + RECORD_HEADER.size
    payload = data[start : start + length]
    return payload if len(payload) == length and zlib.crc32(payload) == crc else None


def salvaged_payloads(data: bytes, position: int) -> list[bytes]:
    """Return the payloads of the whole records behind a damaged one at `position`, but for the schema's.

    They are found by how every Arrow message begins, and taken if their checksum holds.
    """
    found = []
    begin = struct.pack("<I", _CONTINUATION)
    while (start := data.find(begin, position + RECORD_HEADER.size)) >= 0:
        position = start - RECORD_HEADER.size
        payload = whole_payload(data, position)
        if payload is None:
            position += 1
            continue
        if _kind_of(payload) == _RECORD_BATCH:
            found.append(payload)
        position += RECORD_HEADER.size + len(payload)
    return found


def record_number(batch: pa.RecordBatch) -> int:
    """Return the number of the one commit in `batch`. Raises: UntrustedError if it is not one."""
    if batch.num_rows != 1 or RECORD not in batch.schema.names or batch.schema.field(RECORD).type != pa.int64():
        raise UntrustedError("a record is not one commit with a number")
    number = batch.column(RECORD)[0].as_py()
    if number is None or number < 1:
        raise UntrustedError(f"a record has the number {number}")
    return int(number)


def _ends_within(data: bytes, position: int) -> bool:
    if position + RECORD_HEADER.size > len(data):
        return True
    length, _ = RECORD_HEADER.unpack_from(data, position)
    return position + RECORD_HEADER.size + int(length) > len(data)


def _check_message(payload: bytes) -> None:
    """Refuse what Arrow would decompress or look up in dictionaries: neither belongs into a journal."""
    kind = _kind_of(payload)
    if kind not in (_SCHEMA, _RECORD_BATCH):
        raise UntrustedError(f"a record is an Arrow message of kind {kind}")
    try:
        if kind == _RECORD_BATCH and _Flat(payload, _MESSAGE).table(2).has(3):
            raise UntrustedError("a record is compressed")
    except struct.error:
        raise UntrustedError("a record is no Arrow message") from None


def _kind_of(payload: bytes) -> int:
    try:
        continuation, length = struct.unpack_from("<II", payload)
        if continuation != _CONTINUATION or length > len(payload) - _MESSAGE:
            raise UntrustedError("a record is no Arrow message")
        return _Flat(payload, _MESSAGE).number(1, "B")
    except struct.error:
        raise UntrustedError("a record is no Arrow message") from None


class _Flat:
    """A table of a flatbuffer: as much of its reading as tells what kind of message it is."""

    def __init__(self, data: bytes, root: int, position: int | None = None) -> None:
        self._data = data
        self._at = root + struct.unpack_from("<I", data, root)[0] if position is None else position
        self._vtable = self._at - struct.unpack_from("<i", data, self._at)[0]
        if self._vtable < 0:
            raise UntrustedError("a record is no Arrow message")

    def has(self, slot: int) -> bool:
        return self._offset(slot) != 0

    def number(self, slot: int, form: str) -> int:
        offset = self._offset(slot)
        return int(struct.unpack_from(f"<{form}", self._data, self._at + offset)[0]) if offset else 0

    def table(self, slot: int) -> _Flat:
        start = self._at + self._offset(slot)
        return _Flat(self._data, 0, start + struct.unpack_from("<I", self._data, start)[0])

    def _offset(self, slot: int) -> int:
        size = struct.unpack_from("<H", self._data, self._vtable)[0]
        place = 4 + 2 * slot
        return int(struct.unpack_from("<H", self._data, self._vtable + place)[0]) if place < size else 0
