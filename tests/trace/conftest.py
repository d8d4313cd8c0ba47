"""Rows for every table, made from the schema: names, numbers, nulls, NaN and infinities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from object_store import S3, s3_server

from imbdyn.trace import Trace, TraceWriter, _resend, _store, _upload, open_trace
from imbdyn.trace import writer as writer_module
from imbdyn.trace.schema import TABLES

#: Out of order on purpose, with what CSV and spreadsheets trip over.
NAMES = ["net.weight", "*", '=1+1,"x"', "café\n"]
SPECIAL = [np.nan, np.inf, -np.inf, -0.0]


def _columns(table: str, step: int) -> dict[str, Any]:
    """Four rows of a table in one step."""
    random = np.random.default_rng(step)
    columns: dict[str, Any] = {}
    for column in TABLES[table].columns:
        if column.name == "step":
            columns[column.name] = step
        elif pa.types.is_dictionary(column.type):
            columns[column.name] = NAMES
        elif column.type == pa.int32():
            columns[column.name] = random.permutation(4)
        elif column.type == pa.int64():
            columns[column.name] = random.integers(-(2**62), 2**62, 4)
        elif column.type == pa.bool_():
            columns[column.name] = np.ma.masked_array([True, False, True, True], [False, False, True, False])
        else:
            values = random.permutation([random.normal(), SPECIAL[step % 4], random.normal(), 1e-300])
            columns[column.name] = np.ma.masked_array(values, random.permutation([True, False, False, False]))
    return columns


def _rows(table: str, steps: range) -> list[dict[str, Any]]:
    """The rows of those steps as plain Python, sorted by key: what a reader must return."""
    rows = []
    for step in steps:
        lists = {
            name: value.tolist() if isinstance(value, np.ndarray) else [value] * 4 if name == "step" else value
            for name, value in _columns(table, step).items()
        }
        rows += [{name: values[i] for name, values in lists.items()} for i in range(4)]
    return sorted(rows, key=lambda row: [row[name] for name in TABLES[table].key])


@pytest.fixture
def columns() -> Callable[[str, int], dict[str, Any]]:
    return _columns


@pytest.fixture
def rows() -> Callable[[str, range], list[dict[str, Any]]]:
    return _rows


@pytest.fixture(autouse=True)
def _no_writer_works_on_after_its_test() -> Iterator[None]:
    """A writer that a test left open, or failed with, would sync and seal in the midst of the next test."""
    yield
    for writer in list(writer_module._writers):
        writer._stopping = True
        writer._wake.set()
        writer._thread.join(timeout=10)


@pytest.fixture
def writer(tmp_path: Path) -> TraceWriter:
    return TraceWriter(tmp_path / "run")


@pytest.fixture
def trace(writer: TraceWriter) -> Trace:
    """Steps 1 to 8 of every table, in two parts each."""
    for step in range(1, 9):
        for table in TABLES:
            writer.append(table, **_columns(table, step))
        writer.commit()
        if step == 3:
            writer.flush()
    writer.close("finished")
    return open_trace(writer.path)


@pytest.fixture(scope="session")
def s3_server_of_session() -> Iterator[S3]:
    pytest.importorskip("moto", reason="the S3 server is in the extra test")
    with s3_server() as s3:
        yield s3


@pytest.fixture
def s3(s3_server_of_session, tmp_path, monkeypatch) -> Iterator[S3]:
    """The server without a fault, a local staging root, and short waits."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-environment")
    monkeypatch.setenv("IMBDYN_STAGING", str(tmp_path / "staging"))
    monkeypatch.setattr(_store, "REQUEST_ATTEMPTS", 1)
    monkeypatch.setattr(_store, "ANSWER_SECONDS", 20.0)
    monkeypatch.setattr(_upload, "FIRST_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(_upload, "LONGEST_WAIT_SECONDS", 0.1)
    monkeypatch.setattr(_upload, "CLOSE_SECONDS", 20.0)
    monkeypatch.setattr(_resend, "FIRST_WAIT_SECONDS", 0.01)
    server = s3_server_of_session
    server.requests.clear()
    server.in_upload.clear()
    yield server
    server.recover()


@pytest.fixture
def uri(s3, request) -> str:
    return s3.uri(f"bucket/{request.node.name.replace('[', '-').rstrip(']')}")
