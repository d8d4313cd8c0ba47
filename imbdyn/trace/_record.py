"""The message of one commit: an Arrow IPC record batch of one row, made without Arrow's own writer.

The batches of the journal all have one schema, so their metadata differ in numbers only: the length and null count of
every array, the offset and length of every buffer. Those are patched into a copy of a batch that Arrow has written.
Arrow's writer takes ten times as long for the hundred small arrays of a step, which the training thread would wait for.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from imbdyn.trace._format import RECORD, journal_schema
from imbdyn.trace._rows import Cell, Rows
from imbdyn.trace.schema import TABLES

_PADDING = [bytes(-size % 8) for size in range(8)]
_CONTINUATION = 8
"""Bytes before the metadata of a message: 0xFFFFFFFF and its length."""


class RecordEncoder:
    """Encodes commits, in Python; csrc/trace makes the same bytes from what this one knows of a message.

    Body of a message: the record number, a pair of list offsets (0, rows) for each table, and then the buffers of the
    tables that have rows.
    """

    def __init__(self) -> None:
        schema = journal_schema()
        #: What the stream of a segment begins with.
        self.schema_message: bytes = schema.serialize().to_pybytes()
        # The body is not empty (a flatbuffer leaves out what is zero), and no table has rows.
        empty: list[Any] = [1 if field.name == RECORD else [] for field in schema]
        batch = pa.record_batch([pa.array([v], f.type) for v, f in zip(empty, schema, strict=True)], schema=schema)
        message = batch.serialize().to_pybytes()
        size = _CONTINUATION + int.from_bytes(message[4:8], "little")
        self._places = _Places.find(message)
        self._head = struct.Struct(f"<q{2 * len(TABLES)}i")
        self._metadata = bytearray(message[:size])
        self._tables = list(TABLES)
        self._slots = {}
        node, buffer = 1, 2  # those of the record number
        for index, table in enumerate(TABLES.values()):
            names = sum(pa.types.is_dictionary(column.type) for column in table.columns)
            slot = _Slot(
                # the list has a node before, and two buffers: validity and offsets
                self._places.nodes + 16 * (node + 1),
                struct.Struct(f"<{2 * (1 + len(table.columns))}q"),
                self._places.buffers + 16 * (buffer + 2),
                struct.Struct(f"<{2 * (1 + 2 * len(table.columns) + names)}q"),
                [pa.types.is_boolean(column.type) for column in table.columns],
            )
            self._slots[table.name] = slot
            struct.pack_into("<4q", self._metadata, self._places.nodes + 16 * node, 1, 0, 0, 0)
            offsets = 8 + 8 * index
            struct.pack_into("<4q", self._metadata, self._places.buffers + 16 * buffer, offsets, 0, offsets, 8)
            for start in (slot.nodes, slot.buffers):
                packer = slot.nodes_struct if start == slot.nodes else slot.buffers_struct
                packer.pack_into(self._metadata, start, *[0] * (packer.size // 8))
            node += 2 + len(table.columns)
            buffer += 3 + 2 * len(table.columns) + names
        struct.pack_into("<4q", self._metadata, self._places.buffers, 0, 0, 0, 8)

    @property
    def metadata(self) -> bytes:
        """The metadata of a message in which no table has rows."""
        return bytes(self._metadata)

    @property
    def body_length_at(self) -> int:
        """Where in the metadata the length of the body lies."""
        return self._places.body_length

    def numbers_at(self, table: str) -> tuple[int, int]:
        """Return where in the metadata the nodes and the buffers of a table lie."""
        slot = self._slots[table]
        return slot.nodes, slot.buffers

    def encode(self, record: int, tables: Mapping[str, Rows]) -> bytes:
        """Return the message of commit number `record` with these rows."""
        metadata = self._metadata.copy()
        counts = [0] * (2 * len(self._tables))
        body: list[bytes | bytearray] = [metadata, b""]  # the head takes the second place, once the counts are known
        position = self._head.size + -self._head.size % 8
        for index, name in enumerate(self._tables):
            rows = tables.get(name)
            if rows is None:
                continue
            counts[2 * index + 1] = rows.rows
            slot = self._slots[name]
            nodes = [rows.rows, 0]
            buffers = [position, 0]
            for cell, is_bool in zip(rows.columns, slot.is_bool, strict=True):
                data, valid = cell.data, cell.valid
                if valid is True:
                    nodes += (rows.rows, 0)
                    buffers += (position, 0)
                else:
                    bits, nulls = _validity(cell, rows.rows)
                    nodes += (rows.rows, nulls)
                    buffers += (position, len(bits))
                    body += (bits, _PADDING[len(bits) % 8])
                    position += len(bits) + -len(bits) % 8
                if is_bool:
                    data = np.packbits(np.frombuffer(data, np.bool_), bitorder="little").tobytes()
                for buffer in (cell.offsets, data) if cell.offsets else (data,):
                    length = len(buffer)
                    buffers += (position, length)
                    body.append(buffer)
                    if length & 7:
                        body.append(_PADDING[length & 7])
                        length += -length & 7
                    position += length
            slot.nodes_struct.pack_into(metadata, slot.nodes, *nodes)
            slot.buffers_struct.pack_into(metadata, slot.buffers, *buffers)
        body[1] = self._head.pack(record, *counts)
        struct.pack_into("<q", metadata, self._places.body_length, position)
        return b"".join(body)


class _Slot:
    """Where the numbers of one table lie in the metadata: those of its struct and of its columns."""

    __slots__ = ("buffers", "buffers_struct", "is_bool", "nodes", "nodes_struct")

    def __init__(
        self, nodes: int, nodes_struct: struct.Struct, buffers: int, buffers_struct: struct.Struct, is_bool: list[bool]
    ) -> None:
        self.nodes = nodes
        self.nodes_struct = nodes_struct
        self.buffers = buffers
        self.buffers_struct = buffers_struct
        self.is_bool = is_bool


class _Places:
    """Where the numbers of a record batch lie in its message, whose flatbuffer is followed by hand.

    Message: version, header type, header (a RecordBatch), bodyLength. RecordBatch: length, nodes, buffers, ...
    """

    def __init__(self, nodes: int, buffers: int, body_length: int) -> None:
        self.nodes = nodes
        self.buffers = buffers
        self.body_length = body_length

    @classmethod
    def find(cls, message: bytes) -> _Places:
        """Find them in a message."""

        def u32(at: int) -> int:
            return int.from_bytes(message[at : at + 4], "little")

        def field(table: int, index: int) -> int:
            vtable = table - struct.unpack_from("<i", message, table)[0]
            offset = struct.unpack_from("<H", message, vtable + 4 + 2 * index)[0]
            assert offset, "a field that every record batch has"
            return int(table + offset)

        root = _CONTINUATION + u32(_CONTINUATION)
        header = field(root, 2)
        batch = header + u32(header)
        nodes, buffers = field(batch, 1), field(batch, 2)
        return cls(nodes + u32(nodes) + 4, buffers + u32(buffers) + 4, field(root, 3))


def _validity(cell: Cell, rows: int) -> tuple[bytes, int]:
    """Return the bitmap of a column that has nulls, and how many."""
    if cell.valid is False:
        return bytes((rows + 7) // 8), rows
    return np.packbits(cell.valid, bitorder="little").tobytes(), rows - int(np.count_nonzero(cell.valid))
