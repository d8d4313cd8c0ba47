"""A writer of traces made from docs/trace-format.md alone: it shares no code with the package but the schema.

What the package's reader takes from it, a writer in another language may write.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from imbdyn.trace.schema import TABLES


def write_run(folder: Path, **fields: Any) -> None:
    """run.json, with its checksum in front."""
    folder.mkdir(parents=True, exist_ok=True)
    run = {"crc32": "00000000", "schema_version": 1, "status": "finished", **fields}
    encoded = (json.dumps(run, indent=2, ensure_ascii=False) + "\n").encode()
    encoded = encoded.replace(b'"00000000"', b'"%08x"' % zlib.crc32(encoded), 1)
    (folder / "run.json").write_bytes(encoded)


def plain(table: str) -> pa.Schema:
    """The columns of a table with names as utf8."""
    return pa.schema(
        [pa.field(f.name, pa.utf8() if pa.types.is_dictionary(f.type) else f.type) for f in TABLES[table].schema()]
    )


def rows_of(table: str, rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=plain(table))


def write_part(
    folder: Path,
    table: str,
    rows: list[dict[str, Any]] | pa.Table,
    *,
    rank: int = 0,
    sequence: int = 0,
    seals: int = 0,
    group_rows: int = 131_072,
    about: dict[str, str] | None = None,
    metadata_of: str | None = None,
    **options: Any,
) -> Path:
    """A part. `about` adds to its metadata or changes it; `metadata_of` names another table there."""
    plain_rows = rows if isinstance(rows, pa.Table) else rows_of(table, rows)
    schema = TABLES[metadata_of or table].schema()
    given = pa.schema([TABLES[table].schema().field(name) for name in plain_rows.column_names], schema.metadata)
    columns = [
        plain_rows[f.name].dictionary_encode() if pa.types.is_dictionary(f.type) else plain_rows[f.name] for f in given
    ]
    encoded = pa.table(columns, schema=given)
    sink = io.BytesIO()
    crcs = []
    start = 4
    with pq.ParquetWriter(sink, given, **{"compression": "zstd", "write_page_checksum": True, **options}) as writer:
        for first in range(0, encoded.num_rows, group_rows):
            writer.write_table(encoded.slice(first, group_rows), row_group_size=group_rows)
            crcs.append(f"{zlib.crc32(sink.getvalue()[start:]):08x}")
            start = len(sink.getvalue())
        about = {"imbdyn.seals": str(seals), "imbdyn.row_group_crc32": ",".join(crcs), **(about or {})}
        writer.add_key_value_metadata(about)
    return place_part(folder, table, sink.getvalue(), rank=rank, sequence=sequence)


def place_part(folder: Path, table: str, data: bytes, *, rank: int = 0, sequence: int = 0) -> Path:
    """Write a part's bytes under the name that their footer asks for."""
    footer = data[-8 - int.from_bytes(data[-8:-4], "little") :]
    path = folder / table / f"part-{rank:04d}-{sequence:08d}-{zlib.crc32(footer):08x}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def journal_schema() -> pa.Schema:
    return pa.schema(
        [
            pa.field("record", pa.int64(), nullable=False),
            *(pa.field(table, pa.list_(pa.struct(list(plain(table))))) for table in TABLES),
        ]
    )


def record_of(payload: bytes) -> bytes:
    return struct.pack("<II", len(payload), zlib.crc32(payload)) + payload


def records_of(first: int, commits: list[dict[str, list[dict[str, Any]]]]) -> list[bytes]:
    """The records of a segment: the schema, then each commit, numbered from `first`."""
    schema = journal_schema()
    records = [record_of(schema.serialize().to_pybytes())]
    for number, commit in enumerate(commits, first):
        batch = pa.RecordBatch.from_pylist([{"record": number, **commit}], schema=schema)
        records.append(record_of(batch.serialize().to_pybytes()))
    return records


def write_segment(
    folder: Path, commits: list[dict[str, list[dict[str, Any]]]], *, rank: int = 0, sequence: int = 0, first: int = 1
) -> Path:
    """A segment of the journal, from what each commit holds: table -> rows."""
    return place_segment(folder, b"".join(records_of(first, commits)), rank=rank, sequence=sequence)


def place_segment(folder: Path, records: bytes, *, rank: int = 0, sequence: int = 0) -> Path:
    path = folder / "_journal" / f"{rank:04d}-{sequence:08d}.journal"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"IMBDYNJ1" + records)
    return path
