"""A small run that goes to a store, and what is there of it."""

import json
from pathlib import Path
from time import monotonic, sleep

import pyarrow.dataset as ds

from imbdyn.trace import TraceWriter
from imbdyn.trace._remote import Remote
from imbdyn.trace._store import filesystem_of


def train(writer: TraceWriter, steps: range) -> float:
    """Commit a row of two tables for each step, and return how long the slowest commit took."""
    slowest = 0.0
    for step in steps:
        start = monotonic()
        writer.append("classes", step=step, split="train", class_id=[0, 1])
        writer.append("steps", step=step, split="train")
        writer.commit()
        slowest = max(slowest, monotonic() - start)
    return slowest


def steps_at(uri: str, table: str = "steps") -> list[int]:
    """Return the steps of a table as any reader sees them in the store, sorted."""
    filesystem, path = filesystem_of(uri)
    rows = ds.dataset(f"{path}/{table}", filesystem=filesystem, format="parquet").to_table(columns=["step"])
    return sorted(rows["step"].to_pylist())


def run_at(uri: str) -> dict[str, object]:
    return dict(json.loads(Remote(uri).read_record("run.json") or b"{}"))


def wait_until(holds, seconds: float = 60.0) -> None:
    end = monotonic() + seconds
    while not holds():
        assert monotonic() < end, "it did not happen in time"
        sleep(0.05)


def staging_is_empty(tmp_path: Path) -> bool:
    return not list((tmp_path / "staging").iterdir())
