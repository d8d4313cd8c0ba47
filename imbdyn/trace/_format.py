"""What every writer and reader of a trace must agree on: names, magic numbers, headers and checksums.

docs/trace-format.md tells the same for those who read a trace without imbdyn.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from imbdyn.trace.schema import TABLES

RUN_FILE = "run.json"
#: Folder of the journal; dataset readers pass over names with a leading underscore or dot.
JOURNAL_FOLDER = "_journal"

#: What a part is called: part-<rank>-<sequence>-<crc32 of its footer>.parquet.
PART_NAME = re.compile(r"part-(?P<rank>\d{4})-(?P<sequence>\d{8})-(?P<crc>[0-9a-f]{8})\.parquet")
#: What a segment of the journal is called: <rank>-<sequence>.journal.
SEGMENT_NAME = re.compile(r"(?P<rank>\d{4})-(?P<sequence>\d{8})\.journal")
#: What a rank other than 0 has to say of itself, in JOURNAL_FOLDER: <rank>.json. Only rank 0 writes run.json.
RANK_FILE_NAME = re.compile(r"(?P<rank>\d{4})\.json")
#: What a file is called while it is being written, and still if that was cut short.
LEFTOVER_NAME = re.compile(r"\..+\.tmp")

MAX_RANK = 9_999
MAX_SEQUENCE = 99_999_999

#: Row groups of a part have at most so many rows.
ROW_GROUP_ROWS = 131_072

#: Key of a part's metadata: number of the last journal record whose rows are in this part or an earlier one.
SEALS = b"imbdyn.seals"
#: Key of a part's metadata: crc32 of each row group's bytes, 8 hex digits each, comma-separated; empty without rows.
ROW_GROUP_CRC32 = b"imbdyn.row_group_crc32"

#: Key of a part's metadata: names of the parts whose rows are in this one, comma-separated; readers pass over them.
REPLACES = b"imbdyn.replaces"
#: Key of a part's metadata, beside REPLACES: first of the sequence numbers whose rows are in it; its own is the last.
FIRST_SEQUENCE = b"imbdyn.first_sequence"

#: Where a repair puts what it takes out of a trace.
QUARANTINE_FOLDER = "_quarantine"

PARQUET_MAGIC = b"PAR1"
#: First bytes of a segment.
JOURNAL_MAGIC = b"IMBDYNJ1"
#: Before each record of a segment: length of the payload in bytes, and its crc32 (zlib), both little-endian.
RECORD_HEADER = struct.Struct("<II")
#: Field of the journal: number of the commit, per rank, from 1; it goes on when a run is resumed.
RECORD = "record"


def part_name(rank: int, sequence: int, footer_crc: int) -> str:
    """Return the name of a rank's part; a rank's names sort in the order in which the parts were written."""
    return f"part-{rank:04d}-{sequence:08d}-{footer_crc:08x}.parquet"


def segment_name(rank: int, sequence: int) -> str:
    """Return the name of a rank's segment of the journal."""
    return f"{rank:04d}-{sequence:08d}.journal"


def journal_schema() -> pa.Schema:
    """Return the schema of the journal: a row is one commit, with a list of rows for each table; names are plain."""
    fields = [pa.field(RECORD, pa.int64(), nullable=False)]
    for table in TABLES.values():
        columns = [pa.field(column.name, plain_type(column.type)) for column in table.columns]
        fields.append(pa.field(table.name, pa.list_(pa.struct(columns))))
    return pa.schema(fields)


def plain_type(type_: pa.DataType) -> pa.DataType:
    """Return the type of a dictionary's values, and any other type as it is."""
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def footer_size(file: BinaryIO, file_size: int) -> int:
    """Return how many bytes at the end of a Parquet file are its footer: Thrift metadata, 4-byte length and magic.

    Raises: ValueError if the file is too short for what its last 8 bytes say.
    """
    tail = 4 + len(PARQUET_MAGIC)
    if file_size < len(PARQUET_MAGIC) + tail:
        raise ValueError(f"a Parquet file has at least {len(PARQUET_MAGIC) + tail} bytes, got {file_size}")
    file.seek(file_size - tail)
    end = file.read(tail)
    size = int.from_bytes(end[:4], "little") + tail
    if end[4:] != PARQUET_MAGIC or size > file_size - len(PARQUET_MAGIC):
        raise ValueError("the file does not end as a Parquet file does")
    return size


def footer_crc32(file: BinaryIO, file_size: int) -> int:
    """Return the crc32 of a Parquet file's footer, which its name must carry. Raises: ValueError as footer_size."""
    size = footer_size(file, file_size)
    file.seek(file_size - size)
    return zlib.crc32(file.read(size))


def row_group_ranges(metadata: pq.FileMetaData) -> list[tuple[int, int]]:
    """Return the bytes [start, stop) of each row group that its crc32 covers: they follow one another from byte 4."""
    ranges = []
    start = len(PARQUET_MAGIC)
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        chunks = [group.column(i) for i in range(group.num_columns)]
        stop = max(
            (chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset)
            + chunk.total_compressed_size
            for chunk in chunks
        )
        ranges.append((start, stop))
        start = stop
    return ranges


#: How run.json begins: with the crc32 of all its bytes, taken with eight zeros in place of these digits.
_RUN_CRC = re.compile(rb'\A\{\s*"crc32": "(?P<crc>[0-9a-f]{8})"')
_NO_CRC = b"0" * 8


def with_run_crc32(encoded: bytes) -> bytes:
    """Return an encoded run.json, whose first field is `"crc32": "00000000"`, with its checksum in that field."""
    match = _RUN_CRC.match(encoded)
    assert match is not None
    return encoded[: match.start("crc")] + b"%08x" % zlib.crc32(encoded) + encoded[match.end("crc") :]


def run_crc32_holds(encoded: bytes) -> bool:
    """Tell whether run.json is as it was written; without a checksum in front it is not."""
    match = _RUN_CRC.match(encoded)
    if match is None:
        return False
    zeroed = encoded[: match.start("crc")] + _NO_CRC + encoded[match.end("crc") :]
    return zlib.crc32(zeroed) == int(match["crc"], 16)
