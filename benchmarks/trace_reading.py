"""How much of a long trace does a filtered read touch, and how fast is a whole one?

A trace of ROWS rows of class_gradients (1,000 a step, a million a part, as `imbdyn compact` leaves them) is written,
then read by `Trace.table` with filters that want little of it, and by `Trace.batches` whole. Bytes are those that the
process read from files (rchar of /proc/self/io), whoever asked for them; every read checks all checksums of what it
touches. The raw size is 8 bytes a number, 4 a class, the UTF-8 of every name.

    python benchmarks/trace_reading.py [ROWS] [--json benchmarks/results/trace_reading.json]

ROWS is 4,000,000 unless told otherwise; the result in the repository is of 100,000,000.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from imbdyn.bench.report import write_report
from imbdyn.trace import Trace, TraceWriter, open_trace
from imbdyn.trace._part import write_part
from imbdyn.trace.schema import CLASS_GRADIENTS

CLASSES, LAYERS = 10, 100
PART_ROWS = 1_000_000
_STEP_ROWS = CLASSES * LAYERS
_NAMES = [f"layers.{layer:03d}.weight" for layer in range(LAYERS)]


def write(folder: Path, parts: range) -> None:
    """Write parts of the trace."""
    random = np.random.default_rng(parts.start)
    steps = PART_ROWS // _STEP_ROWS
    parameter = pa.DictionaryArray.from_arrays(
        np.tile(np.repeat(np.arange(LAYERS), CLASSES), steps).astype("i4"), _NAMES
    )
    class_id = pa.array(np.tile(np.arange(CLASSES), LAYERS * steps).astype("i4"))
    count = pa.array(np.tile(np.arange(CLASSES), LAYERS * steps))
    for sequence in parts:
        norms = random.normal(size=(2, PART_ROWS)).astype("f4").astype("f8")  # of float32 precision, as a training's
        columns = {
            "step": np.repeat(np.arange(steps) + sequence * steps + 1, _STEP_ROWS),
            "parameter": parameter,
            "class_id": class_id,
            "count": count,
            "grad_norm": norms[0],
            "grad_share": norms[1],
        }
        schema = CLASS_GRADIENTS.schema()
        absent = pa.nulls(PART_ROWS, pa.float64())
        part = pa.table([columns.get(name, absent) for name in schema.names], schema=schema)
        write_part(folder / CLASS_GRADIENTS.name, CLASS_GRADIENTS, [part], rank=0, sequence=sequence, seals=0)


def bytes_read() -> int:
    """Return how many bytes this process has read from files so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


def measured(trace: Trace, filter: ds.Expression, columns: list[str] | None) -> dict[str, Any]:
    """Read what a filter wants."""
    before, start = bytes_read(), time.perf_counter()
    rows = trace.table(CLASS_GRADIENTS.name, columns, filter).num_rows
    return {"rows": rows, "seconds": time.perf_counter() - start, "mb_read": (bytes_read() - before) / 1e6}


def reads(folder: Path, last_step: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and result of each filtered read."""
    step = ds.field("step")
    trace = open_trace(folder)
    yield "one step, first use: footers too", measured(trace, step == last_step // 2, None)
    yield "one step", measured(trace, step == last_step // 3, None)
    yield "the last 100 steps, two columns", measured(trace, step > last_step - 100, ["step", "grad_norm"])
    wanted = (step == last_step // 5) & (ds.field("parameter") == _NAMES[3]) & (ds.field("class_id") == 4)
    yield "one row", measured(trace, wanted, None)
    yield "a step that there is not", measured(trace, step == last_step + 1, None)


def measure(folder: Path, rows: int) -> dict[str, Any]:
    """Read the trace in every way, print what was found and return it."""
    raw_mb = rows * (8 + len(_NAMES[0]) + 4 + 8 + 8 + 8) / 1e6
    disk_mb = sum(path.stat().st_size for path in folder.rglob("*.parquet")) / 1e6
    print(f"{rows:,} rows: {raw_mb:,.0f} MB raw, {disk_mb:,.0f} MB on disk ({disk_mb / raw_mb:.2f})")
    filtered = dict(reads(folder, rows // _STEP_ROWS))
    for name, found in filtered.items():
        share = found["mb_read"] / disk_mb
        print(f"{name:<34} {found['rows']:>8} rows {found['seconds']:8.3f} s {found['mb_read']:9.2f} MB {share:8.3%}")
    start, cpu = time.perf_counter(), time.process_time()
    assert sum(batch.num_rows for batch in open_trace(folder).batches(CLASS_GRADIENTS.name)) == rows
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    whole = {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "raw_mb_per_second": raw_mb / seconds,
        "raw_mb_per_cpu_second": raw_mb / cpu_seconds,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }
    print("whole:", {name: round(value, 1) for name, value in whole.items()})
    return {"rows": rows, "raw_mb": raw_mb, "disk_mb": disk_mb, "filtered": filtered, "whole": whole}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int, nargs="?", default=4_000_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        TraceWriter(folder).close("finished")
        write(folder, range(arguments.rows // PART_ROWS))
        results = measure(folder, arguments.rows // PART_ROWS * PART_ROWS)
    if arguments.json:
        write_report(arguments.json, **results)


if __name__ == "__main__":
    main()
