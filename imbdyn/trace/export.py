"""Stream one table of a trace into another format, in bounded memory.

Rows come in the order in which they were written, sorted by the table's key within each part; names are plain strings.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from imbdyn.trace.reader import Trace
from imbdyn.trace.several import TraceSet

#: Rows of one batch: a row group in Parquet, a record batch in Arrow.
BATCH_ROWS = 65_536

_Batches = Iterable[pa.RecordBatch]


def write_csv(schema: pa.Schema, batches: _Batches, sink: BinaryIO) -> None:
    """CSV with a header; null is empty, names are in double quotes.

    A name that a spreadsheet would take for a formula (it starts with = + - @, a tab or a carriage return) gets a
    single quote in front, and so does one that starts with a single quote: a reader takes one off again.
    """
    with pyarrow.csv.CSVWriter(sink, schema) as writer:
        for batch in batches:
            columns = [_as_text(column) if pa.types.is_string(column.type) else column for column in batch]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def write_jsonl(_schema: pa.Schema, batches: _Batches, sink: BinaryIO) -> None:
    """One strict JSON object a line; what JSON has no number for is the string "NaN", "Infinity" or "-Infinity"."""
    for batch in batches:
        for row in batch.to_pylist():
            line = json.dumps({name: _json_value(value) for name, value in row.items()}, ensure_ascii=False)
            sink.write(line.encode() + b"\n")


def write_arrow(schema: pa.Schema, batches: _Batches, sink: BinaryIO) -> None:
    """The Arrow IPC file format (Feather 2), with the metadata of the table and its columns."""
    with pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def write_parquet(schema: pa.Schema, batches: _Batches, sink: BinaryIO) -> None:
    """One Parquet file (zstd), with the metadata of the table and its columns."""
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)


#: The formats by name, which is also the ending of the file's name, but for TensorBoard's.
FORMATS: dict[str, Callable[[pa.Schema, _Batches, BinaryIO], None]] = {
    "csv": write_csv,
    "jsonl": write_jsonl,
    "arrow": write_arrow,
    "parquet": write_parquet,
}
TENSORBOARD = "tensorboard"


def export_table(
    trace: Trace,
    table: str,
    format: str,
    sink: BinaryIO,
    columns: Sequence[str] | None = None,
    filter: ds.Expression | None = None,
    on_read: Callable[[int, int], None] | None = None,
) -> int:
    """Write rows of a table to `sink`; return how many there were.

    Args:
        format: one of FORMATS, or TENSORBOARD, which needs the package tensorboard.
        columns: write only these; TensorBoard's tags have the key all the same.
        filter: as Trace.table takes it.
        on_read: called with the number of pieces of the trace that were read, and of those that there are.

    Raises: KeyError for an unknown table, column or format.
    """
    write = None if format == TENSORBOARD else FORMATS[format]
    schema = trace.schema(table)
    if columns is not None:
        key = trace.key(table) if write is None else ()
        columns = list(dict.fromkeys([*key, *columns]))
    reads = trace.reads(table, columns, filter)
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns], schema.metadata)
    rows = 0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal rows
        for done, read in enumerate(reads, start=1):
            found = read()
            rows += found.num_rows
            yield from found.to_batches(max_chunksize=BATCH_ROWS)
            if on_read is not None:
                on_read(done, len(reads))

    if write is None:
        from imbdyn.trace.tensorboard import write_tensorboard

        write_tensorboard(schema, batches(), sink, _started(trace))
    else:
        write(schema, _full_batches(batches()), sink)
    return rows


def _started(trace: Trace) -> float:
    """Return when the run, or the first of several, was started, in seconds since 1970; 0 if it does not say."""
    records = trace.run.values() if isinstance(trace, TraceSet) else [trace.run]
    try:
        return min(datetime.fromisoformat(record["started"]).timestamp() for record in records)
    except (KeyError, TypeError, ValueError, OverflowError):
        return 0.0


def _full_batches(batches: _Batches) -> Iterator[pa.RecordBatch]:
    """Join the small batches of small parts until at least half of BATCH_ROWS are together."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= BATCH_ROWS // 2:
            yield from _joined(waiting)
            waiting, rows = [], 0
    if waiting:
        yield from _joined(waiting)


def _joined(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    joined: list[pa.RecordBatch] = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return joined


def _as_text(names: pa.StringArray) -> pa.StringArray:
    risky = pc.match_substring_regex(names, r"^[=+\-@\t\r']")
    return pc.if_else(risky, pc.binary_join_element_wise("'", names, ""), names)


def _json_value(value: object) -> object:
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
