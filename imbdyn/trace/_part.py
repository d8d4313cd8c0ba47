"""Write one sealed part: Parquet with a checksum of every row group in its metadata, and of its footer in its name."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imbdyn.trace._files import sync_folder
from imbdyn.trace._format import ROW_GROUP_CRC32, ROW_GROUP_ROWS, SEALS, footer_crc32, part_name
from imbdyn.trace.schema import Table


def write_part(
    folder: Path,
    table: Table,
    batches: Iterable[pa.Table],
    *,
    rank: int,
    sequence: int,
    seals: int,
    about: Mapping[bytes, str] = MappingProxyType({}),
) -> Path:
    """Write rows as a part into a table's folder, which is made if it is not there; return the part's path.

    On return the part has its name, and its contents are on disk; its name is once `sync_folder` has been called.
    After an error there is no part, and no temporary file.

    Args:
        folder: the table's folder.
        table: what the rows are.
        batches: the rows, with the table's columns, names plain or dictionary-encoded, in the order in which they are
            to stand: `sorted_by_key`. A batch starts a row group; one of more than ROW_GROUP_ROWS becomes several.
        rank: of the process whose rows they are.
        sequence: number of the part, of this table and rank; taken by no other part.
        seals: number of the last journal record that is in this part or an earlier one.
        about: more of the part's metadata: REPLACES and FIRST_SEQUENCE, if it stands for other parts.

    Raises: OSError if it cannot be written.
    """
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)  # another rank may have made it just now
        sync_folder(folder.parent)
    # One temporary name a rank and sequence: what a crash leaves is written over.
    temporary = folder / f".part-{rank:04d}-{sequence:08d}.parquet.tmp"
    try:
        with temporary.open("w+b") as file:
            _write(file, table, batches, {SEALS: str(seals), **about})
            file.flush()
            os.fsync(file.fileno())
            crc = footer_crc32(file, file.seek(0, os.SEEK_END))
        part = folder / part_name(rank, sequence, crc)
        temporary.replace(part)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return part


def sorted_by_key(table: Table, rows: pa.Table) -> pa.Table:
    """Return rows in the order of the table's key; its names must be plain, since Arrow sorts no dictionaries."""
    key = pa.table({name: rows[name] for name in table.key})
    return rows.take(pc.sort_indices(key, sort_keys=[(name, "ascending") for name in key.column_names]))


def _write(file: BinaryIO, table: Table, batches: Iterable[pa.Table], about: Mapping[bytes, str]) -> None:
    schema = table.schema()
    sink = _Checksummed(file)
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer:
        sink.begin()  # behind the magic
        checksums = []
        for batch in batches:
            encoded = pa.table([_encoded(batch[field.name], field.type) for field in schema], schema=schema)
            for start in range(0, encoded.num_rows, ROW_GROUP_ROWS):
                writer.write_table(encoded.slice(start, ROW_GROUP_ROWS), row_group_size=ROW_GROUP_ROWS)
                checksums.append(f"{sink.begin():08x}")
        about = {**about, ROW_GROUP_CRC32: ",".join(checksums)}
        writer.add_key_value_metadata({key.decode(): value for key, value in about.items()})


def _encoded(column: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray:
    if column.type == type_:
        return column
    return column.dictionary_encode() if pa.types.is_dictionary(type_) else column.cast(type_)


class _Checksummed(io.RawIOBase):
    """Passes on what Arrow writes, and keeps the crc32 of it since `begin` was last called."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._crc = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._crc = zlib.crc32(data, self._crc)
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def begin(self) -> int:
        """Start a new checksum and return the one that ends here."""
        crc, self._crc = self._crc, 0
        return crc
