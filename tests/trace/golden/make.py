"""Write the golden trace of the current schema version: `python tests/trace/golden/make.py`, once, when it is released.

What is committed is never made again: a later version has to read it. The run is killed, resumed, and killed again, so
that there are parts, superseded steps and a journal; `expected.json` holds the rows that must be read.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from imbdyn.trace import TraceWriter
from imbdyn.trace.schema import SCHEMA_VERSION, TABLES

HERE = Path(__file__).parent / f"version-{SCHEMA_VERSION}"


def row(table: str, step: int, attempt: int) -> dict[str, Any]:
    """One row of a table, in which every column has a value of its own."""
    values: dict[str, Any] = {}
    for number, column in enumerate(TABLES[table].columns):
        if column.name == "step":
            values[column.name] = step
        elif pa.types.is_dictionary(column.type):
            values[column.name] = f"{column.name} é"
        elif pa.types.is_boolean(column.type):
            values[column.name] = step % 2 == 0
        elif pa.types.is_integer(column.type):
            values[column.name] = 100 * attempt + number
        else:
            values[column.name] = None if step == 3 and number % 2 else step + attempt / 7 + number / 1000
    return {**values, "class_a": 1, "class_b": 2} if "class_a" in values else values


def write(writer: TraceWriter, steps: range, attempt: int) -> None:
    for step in steps:
        for table in TABLES:
            writer.append(table, **row(table, step, attempt))
        writer.commit()


def attempt(number: int) -> None:
    """Write a part of the run and die."""
    writer = TraceWriter(HERE, resume=number > 0, flush_seconds=3600, run_id="golden")
    if number:
        writer.resume_after(3)
    writer.update_run(class_names=["a", "b", "ü"], class_counts=[3, 2, 1])
    write(writer, (range(1, 6), range(4, 7))[number], number)
    writer.flush()
    write(writer, (range(6, 8), range(7, 9))[number], number)
    os._exit(0)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        attempt(int(sys.argv[1]))
    shutil.rmtree(HERE, ignore_errors=True)
    for number in (0, 1):
        os.spawnv(os.P_WAIT, sys.executable, [sys.executable, __file__, str(number)])
    told = [(1, 0), (2, 0), (3, 0), (4, 1), (5, 1), (6, 1), (7, 1), (8, 1)]
    expected = {table: [row(table, step, number) for step, number in told] for table in TABLES}
    lines = ",\n".join(f"{json.dumps(table)}: {json.dumps(rows)}" for table, rows in expected.items())
    (HERE.with_suffix(".json")).write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
