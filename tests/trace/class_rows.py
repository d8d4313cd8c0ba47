"""Rows of three classes, and what a trace holds of them."""

import time
from pathlib import Path

import pandas as pd
from reference_trace_reader import read_journal, read_table

from imbdyn.trace import TraceWriter

KEY = {"split": "train", "class_id": [0, 1, 2]}


def steps_of(run: Path) -> list[int]:
    """Steps of parts and journal."""
    return sorted(row["step"] for row in read_table(run, "classes"))


def sealed_steps(writer: TraceWriter) -> list[int]:
    return pd.read_parquet(writer.path / "classes")["step"].tolist()


def wait_until(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def wait_until_sealed(writer: TraceWriter) -> None:
    """Wait until parts have all that was committed."""

    def sealed() -> bool:
        try:
            return not read_journal(writer.path)
        except FileNotFoundError:  # sealed and removed between the listing of the journal and its reading
            return False

    wait_until(sealed)
