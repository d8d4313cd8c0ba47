import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imbdyn.trace import TraceWriter, open_trace
from imbdyn.trace._format import ROW_GROUP_CRC32, SEALS
from imbdyn.trace.schema import SCHEMA_VERSION, TABLES

KEY = {"step": 1, "split": "train", "class_id": [0, 1, 2]}


def losses(writer: TraceWriter) -> list[Any]:
    writer.flush()
    return open_trace(writer.path).table("classes")["loss"].to_pylist()


@pytest.mark.parametrize("table", TABLES)
def test_every_table_comes_back_as_it_was_appended(trace, rows, table):
    # repr tells NaN from null and -0.0 from 0.0, and finds two NaN alike
    assert repr(trace.table(table).to_pylist()) == repr(rows(table, range(1, 9)))


@pytest.mark.parametrize("table", TABLES)
def test_parts_have_the_schema_with_its_metadata_and_are_sorted_by_key(trace, rows, table):
    parts = sorted((trace.path / table).iterdir())
    assert [part.name[:-17] for part in parts] == ["part-0000-00000000", "part-0000-00000001"]
    for part, steps in zip(parts, (range(1, 4), range(4, 9)), strict=True):
        written = pq.ParquetFile(part).read()
        own = {SEALS: b"%d" % steps[-1], ROW_GROUP_CRC32: written.schema.metadata[ROW_GROUP_CRC32]}
        assert written.schema.metadata == {**TABLES[table].schema().metadata, **own}
        assert written.schema.remove_metadata().equals(TABLES[table].schema().remove_metadata())
        assert [field.metadata for field in written.schema] == [field.metadata for field in TABLES[table].schema()]
        assert repr(written.to_pylist()) == repr(rows(table, steps))
        assert pq.ParquetFile(part).metadata.row_group(0).column(0).compression == "ZSTD"


def test_masked_none_and_missing_are_null_and_nan_stays(writer):
    writer.append("classes", **KEY, loss=np.ma.masked_array([1.0, 2.0, np.nan], [False, True, False]), margin=None)
    writer.flush()
    table = open_trace(writer.path).table("classes")
    one, masked, nan = table["loss"].to_pylist()
    assert one == 1.0
    assert masked is None
    assert math.isnan(nan)
    assert table["margin"].null_count == table["accuracy"].null_count == 3


def test_a_column_that_was_given_before_is_null_when_missing(writer):
    writer.append("classes", **KEY, loss=7.0)
    writer.append("classes", **{**KEY, "step": 2})
    assert losses(writer) == [7.0] * 3 + [None] * 3


def test_all_scalars_make_one_row_and_no_rows_make_none(writer):
    writer.append("classes", step=1, split="train", class_id=0, loss=np.float32(0.5))
    writer.append("classes", step=2, split="train", class_id=[], loss=[])
    assert writer.waiting_rows == 1
    assert losses(writer) == [0.5]


def test_values_are_copied_at_append(writer):
    loss = np.ones(3)
    writer.append("classes", **KEY, loss=loss)
    loss[:] = 2
    assert losses(writer) == [1.0, 1.0, 1.0]


def test_a_buffer_that_grows_keeps_its_rows(writer):
    for step in range(1000):
        writer.append("classes", step=step, split=["train", "test"], class_id=0, loss=[step, -step])
    table = (writer.flush(), open_trace(writer.path).table("classes"))[1]
    assert table["loss"].to_pylist() == [value for step in range(1000) for value in (-step, step)]
    assert table["split"].to_pylist() == ["test", "train"] * 1000


@pytest.mark.parametrize(
    ("table", "columns", "error", "message"),
    [
        ("clases", KEY, KeyError, "there is no table 'clases'; the nearest name is 'classes'"),
        ("../run", KEY, KeyError, "there is no table '../run'"),
        ("classes", {**KEY, "los": 1.0}, KeyError, "there is no column of classes 'los'; the nearest name is 'loss'"),
        ("classes", {**KEY, "loss": [1.0, 2.0]}, ValueError, "equal lengths, got {'class_id': 3, 'loss': 2}"),
        ("classes", {**KEY, "loss": np.ones((3, 1))}, ValueError, r"classes.loss .* got shape \(3, 1\)"),
        ("classes", {**KEY, "count": [1.0, 2.0, 3.0]}, TypeError, "classes.count holds int64, got float64"),
        ("classes", {**KEY, "loss": [1.0, None, 2.0]}, TypeError, "classes.loss holds double, got object; absent"),
        ("classes", {**KEY, "loss": "1"}, TypeError, "classes.loss holds double, got <U1"),
        ("classes", {**KEY, "split": ["a", 1, "b"]}, TypeError, "classes.split holds names, got 1"),
        ("classes", {**KEY, "split": "\udcff"}, ValueError, "surrogates not allowed"),
        ("classes", {"step": 1, "class_id": 0}, ValueError, "missing: split"),
        ("classes", {**KEY, "split": None}, ValueError, "classes.split is part of the key and cannot be null"),
        (
            "classes",
            {**KEY, "class_id": np.ma.masked_array([0, 1], [False, True])},
            ValueError,
            "classes.class_id is part of the key and cannot be null",
        ),
        ("steps", {"step": 1, "split": "train", "sampled": 1}, TypeError, "steps.sampled holds bool, got int64"),
    ],
)
def test_a_wrong_append_names_the_rule_and_adds_nothing(writer, table, columns, error, message):
    with pytest.raises(error, match=message):
        writer.append(table, **columns)
    assert writer.waiting_rows == 0


def test_a_flush_without_rows_makes_no_part(writer):
    writer.flush()
    assert [path.name for path in writer.path.iterdir()] == ["run.json"]


def test_run_json_tells_how_the_run_goes_and_ends(writer):
    run = json.loads((writer.path / "run.json").read_text())
    assert (run["schema_version"], run["status"], run["ended"]) == (SCHEMA_VERSION, "running", None)
    writer.update_run(counts=np.array([3, 4]), seed=np.int64(5), names=["a", "ä"])
    writer.append("classes", **KEY)
    writer.close("interrupted")
    writer.close("finished")  # nothing more: the first end counts
    run = json.loads((writer.path / "run.json").read_text())
    assert (run["counts"], run["seed"], run["names"]) == ([3, 4], 5, ["a", "ä"])
    assert (run["status"], run["dropped_rows"]) == ("interrupted", 0)
    assert run["started"] <= run["ended"]
    assert len(open_trace(writer.path).classes) == 3


@pytest.mark.parametrize(("value", "error"), [(math.nan, ValueError), (object(), TypeError)])
def test_what_json_cannot_hold_is_refused_and_not_remembered(writer, value, error):
    with pytest.raises(error):
        writer.update_run(value=value)
    writer.close("finished")
    assert "value" not in open_trace(writer.path).run


def test_a_closed_trace_takes_no_rows_and_no_unknown_status(writer):
    with pytest.raises(ValueError, match="finished, interrupted, failed, got 'done'"):
        writer.close("done")
    writer.close("failed")
    with pytest.raises(ValueError, match="is closed"):
        writer.append("classes", **KEY)


def test_the_schema_says_which_columns_are_names():
    names = {
        column.name for table in TABLES.values() for column in table.columns if pa.types.is_dictionary(column.type)
    }
    assert names == {"split", "parameter", "layer"}
