"""Read parts: the footer, whose crc32 is in the part's name, and row groups, whose crc32 are in the footer.

A row group is read once, checked, and decoded from the bytes that were checked. A part may come from a stranger, with
checksums that hold: so the sizes that it declares are bounded, and compared with its pages, before it is decompressed.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import and_
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs

from imbdyn.trace._damage import UntrustedError
from imbdyn.trace._format import (
    FIRST_SEQUENCE,
    PARQUET_MAGIC,
    PART_NAME,
    REPLACES,
    ROW_GROUP_CRC32,
    ROW_GROUP_ROWS,
    SEALS,
    row_group_ranges,
)
from imbdyn.trace._pages import check_pages
from imbdyn.trace._plain import LABEL_COLUMNS, Labels, check_columns, plain_schema
from imbdyn.trace.schema import SCHEMA_VERSION, Table

#: Bytes of a footer, of the decompressed columns of a row group, and of a column of names with each name written out.
MAX_FOOTER_BYTES, MAX_GROUP_BYTES, MAX_NAMES_BYTES = 64 << 20, 512 << 20, 512 << 20

NO_LABELS: Labels = MappingProxyType({})

#: The end of a file that is read first; most footers lie in it.
_FIRST_READ = 32 << 10
_TAIL = 4 + len(PARQUET_MAGIC)


@dataclass(frozen=True, eq=False)
class Part:
    """A part whose footer was checked."""

    table: Table
    filesystem: fs.FileSystem
    path: str
    size: int
    footer: bytes
    metadata: pq.FileMetaData
    group_crc32: tuple[int, ...]
    #: Number of the last journal record that is in this part or an earlier one of its table and rank.
    seals: int
    #: Names of the parts whose rows are in this one.
    replaces: frozenset[str]
    #: The first of the sequence numbers whose rows are in it; its own is the last.
    first_sequence: int

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.rpartition("/")[2]

    @property
    def rank(self) -> int:
        """Rank of the process that wrote it."""
        return int(self._name["rank"])

    @property
    def sequence(self) -> int:
        """Its number, of this table and rank."""
        return int(self._name["sequence"])

    @cached_property
    def ranges(self) -> list[tuple[int, int]]:
        """The bytes [start, stop) of each row group."""
        return row_group_ranges(self.metadata)

    def fragment(self, format: ds.ParquetFileFormat, labels: Labels) -> ds.Fragment:
        """Return the part as a fragment of a dataset, nothing of which was checked but the footer."""
        return format.make_fragment(self.path, self.filesystem, _are(labels))

    def groups(self, filter: ds.Expression | None, labels: Labels = NO_LABELS) -> list[int]:
        """Return the row groups that may hold rows for which `filter` is true, from the statistics in the footer."""
        if filter is None:
            return list(range(self.metadata.num_row_groups))
        footer = _in_arrow(4 + len(self.footer), (0, PARQUET_MAGIC), (4, self.footer))
        fragment = ds.ParquetFileFormat().make_fragment(footer, partition_expression=_are(labels))
        subset = fragment.subset(filter=filter, schema=plain_schema(self.table, labels))
        return [group.id for group in subset.row_groups]

    def steps(self, group: int) -> tuple[int, int] | None:
        """Return the first and the last step of a row group, from its statistics."""
        column = self.metadata.schema.names.index("step")
        statistics = self.metadata.row_group(group).column(column).statistics
        if statistics is None or not statistics.has_min_max:
            return None
        return statistics.min, statistics.max

    def read_group(
        self,
        group: int,
        columns: Sequence[str] | None = None,
        filter: ds.Expression | None = None,
        labels: Labels = NO_LABELS,
    ) -> pa.Table:
        """Return rows of one row group, with plain names; all its bytes are read and checked.

        `labels` stand in columns in front.

        Raises: UntrustedError if they are not as they were written, FileNotFoundError if the part is gone.
        """
        start, stop = self.ranges[group]
        with self.filesystem.open_input_file(self.path) as file:
            data = file.read_at(stop - start, start)
        if zlib.crc32(data) != self.group_crc32[group]:
            raise UntrustedError(f"row group {group} (bytes {start} to {stop}) is damaged")
        self._check_pages(group, memoryview(data))
        names = [field.name for field in self.table.schema() if pa.types.is_dictionary(field.type)]
        format = ds.ParquetFileFormat(read_options=ds.ParquetReadOptions(dictionary_columns=names))
        try:
            tail = self.size - len(self.footer)
            sparse = _in_arrow(self.size, (0, PARQUET_MAGIC), (start, data), (tail, self.footer))
            fragment = format.make_fragment(sparse, partition_expression=_are(labels), row_groups=[group])
            self._check_names(fragment, [name for name in names if name in self.metadata.schema.names])
            schema = plain_schema(self.table, labels)
            rows = fragment.to_table(schema=schema, columns=columns, filter=filter)
            rows.validate(full=True)
        except (pa.ArrowException, OSError) as error:
            raise UntrustedError(f"row group {group} cannot be decoded: {error}") from None
        return rows

    def _check_pages(self, group: int, data: memoryview) -> None:
        metadata, offset = self.metadata.row_group(group), self.ranges[group][0]
        for index in range(metadata.num_columns):
            column = metadata.column(index)
            start = column.data_page_offset
            if column.has_dictionary_page and column.dictionary_page_offset is not None:
                start = min(start, column.dictionary_page_offset)
            chunk = data[start - offset : start - offset + column.total_compressed_size]
            if start < offset or len(chunk) != column.total_compressed_size:
                raise UntrustedError(f"{column.path_in_schema} lies outside of its row group")
            check_pages(chunk, metadata.num_rows, column.total_uncompressed_size)

    def _check_names(self, fragment: ds.Fragment, names: Sequence[str]) -> None:
        """Refuse names that would be too long once each is written out, however short they are in the dictionary."""
        for name in names:
            chunks = fragment.to_table(columns=[name]).column(name).chunks
            sizes = [
                pc.sum(pc.take(pc.cast(pc.binary_length(chunk.dictionary), pa.int64()), chunk.indices)).as_py() or 0
                for chunk in chunks
                if pa.types.is_dictionary(chunk.type)
            ]
            if sum(sizes) > MAX_NAMES_BYTES:
                raise UntrustedError(f"its names in {name} have {sum(sizes)} bytes, {MAX_NAMES_BYTES} at most are read")

    @cached_property
    def _name(self) -> dict[str, str]:
        match = PART_NAME.fullmatch(self.name)
        assert match is not None
        return match.groupdict()


def open_part(filesystem: fs.FileSystem, table: Table, path: str, size: int) -> Part:
    """Read and check a part's footer.

    Raises: UntrustedError if it is not as it was written, or no part of `table`; FileNotFoundError if it is gone.
    """
    match = PART_NAME.fullmatch(path.rpartition("/")[2])
    assert match is not None
    footer = _read_footer(filesystem, path, size)
    if zlib.crc32(footer) != int(match["crc"], 16):
        raise UntrustedError("its footer is not the one that its name tells")
    try:
        metadata = pq.ParquetFile(pa.BufferReader(PARQUET_MAGIC + footer)).metadata
        schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError) as error:
        raise UntrustedError(f"its footer cannot be decoded: {error}") from None
    about = metadata.metadata or {}
    if about.get(b"imbdyn.table") != table.name.encode():
        raise UntrustedError(f"it is no part of {table.name}")
    version, seals = _number(about, b"imbdyn.schema_version"), _number(about, SEALS)
    if version > SCHEMA_VERSION:
        raise UntrustedError(f"it has trace schema {version}, and {SCHEMA_VERSION} is the newest known")
    check_columns(table, schema)
    _check_groups(metadata, size - len(footer))
    try:
        crcs = tuple(int(crc, 16) for crc in about.get(ROW_GROUP_CRC32, b"").decode().split(",") if crc)
        replaces = frozenset(name for name in about.get(REPLACES, b"").decode().split(",") if name)
    except ValueError:
        raise UntrustedError("its checksums cannot be read") from None
    if len(crcs) != metadata.num_row_groups:
        raise UntrustedError(f"it has {metadata.num_row_groups} row groups and {len(crcs)} checksums")
    first = _number(about, FIRST_SEQUENCE) if FIRST_SEQUENCE in about else int(match["sequence"])
    return Part(table, filesystem, path, size, footer, metadata, crcs, seals, replaces, first)


def _read_footer(filesystem: fs.FileSystem, path: str, size: int) -> bytes:
    with filesystem.open_input_file(path) as file:
        offset = max(0, size - _FIRST_READ)
        end = file.read_at(size - offset, offset)
        if len(end) < _TAIL or not end.endswith(PARQUET_MAGIC):
            raise UntrustedError("it does not end as a Parquet file does")
        length = int.from_bytes(end[-_TAIL : -len(PARQUET_MAGIC)], "little") + _TAIL
        if length > min(size - len(PARQUET_MAGIC), MAX_FOOTER_BYTES):
            raise UntrustedError(f"its footer would have {length} of its {size} bytes")
        return bytes(end[-length:] if length <= len(end) else file.read_at(length, size - length))


def _number(about: dict[bytes, bytes], key: bytes) -> int:
    text = about.get(key, b"")
    if not (text.isdigit() and len(text) < 20):
        raise UntrustedError(f"its {key.decode()} is no number")
    return int(text)


def _check_groups(metadata: pq.FileMetaData, end: int) -> None:
    """Check what the footer says of the row groups against the file's size and the bounds of the format."""
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        size = sum(group.column(i).total_uncompressed_size for i in range(group.num_columns))
        if not 0 <= group.num_rows <= ROW_GROUP_ROWS or not 0 <= size <= MAX_GROUP_BYTES:
            raise UntrustedError(
                f"row group {index} would have {group.num_rows} rows and {size} bytes, {ROW_GROUP_ROWS} and "
                f"{MAX_GROUP_BYTES} are the most"
            )
    start = len(PARQUET_MAGIC)
    for index, (begin, stop) in enumerate(row_group_ranges(metadata)):
        if begin != start or not begin <= stop <= end:
            raise UntrustedError(f"row group {index} lies at bytes {begin} to {stop} of {end}")
        start = stop


def _are(labels: Labels) -> ds.Expression | None:
    """Say of the rows of a file what Arrow then takes for their columns."""
    known = [ds.field(name) == pa.scalar(value, LABEL_COLUMNS[name].type) for name, value in labels.items()]
    return reduce(and_, known) if known else None


def _in_arrow(size: int, *pieces: tuple[int, bytes]) -> pa.BufferReader:
    """Return a file of `size` bytes, of which only the pieces, each with where it starts, are there.

    It lies in Arrow's own memory. A Python object would need the GIL when Arrow's threads let go of it, which they do a
    moment after the read: in a process that is just ending that is an abort. What is not written takes no memory.
    """
    buffer = pa.allocate_buffer(size)
    view = np.frombuffer(buffer, np.uint8)
    for start, data in pieces:
        view[start : start + len(data)] = np.frombuffer(data, np.uint8)
    return pa.BufferReader(buffer)
