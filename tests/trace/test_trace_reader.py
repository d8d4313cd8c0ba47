import json
import subprocess
import sys

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

import imbdyn
from imbdyn.trace import Trace, TraceError, TraceWriter, open_trace
from imbdyn.trace.schema import SCHEMA_VERSION, TABLES


@pytest.mark.parametrize("table", TABLES)
def test_every_table_is_a_frame_sorted_by_its_key(trace, rows, table):
    frame = getattr(trace, table)
    expected = rows(table, range(1, 9))
    assert list(frame.columns) == [column.name for column in TABLES[table].columns]
    for name in TABLES[table].key:
        assert frame[name].tolist() == [row[name] for row in expected]


def test_rows_are_sorted_across_parts(writer):
    for step, split in ((2, "b"), (1, "z"), (2, "a")):
        writer.append("steps", step=step, split=split)
        writer.flush()
    steps = open_trace(writer.path).steps
    assert list(zip(steps["step"], steps["split"], strict=True)) == [(1, "z"), (2, "a"), (2, "b")]


def test_names_are_plain_strings_and_a_bool_with_nulls_selects(trace):
    assert not isinstance(trace.steps["split"].dtype, pd.CategoricalDtype)
    assert trace.steps["split"].iloc[0] == "*"
    assert isinstance(trace.steps["sampled"].dtype, pd.BooleanDtype)
    assert len(trace.steps[trace.steps["sampled"]]) == 16


def test_table_selects_columns_and_filters_rows(trace, rows):
    condition = (ds.field("step") > 6) & (ds.field("parameter") == "*")
    table = trace.table("class_gradients", columns=["grad_norm", "step"], filter=condition)
    expected = [
        {"grad_norm": row["grad_norm"], "step": row["step"]}
        for row in rows("class_gradients", range(7, 9))
        if row["parameter"] == "*"
    ]
    assert repr(table.to_pylist()) == repr(expected)
    assert table.schema.field("grad_norm").metadata[b"formula"] == b"||G_c||; carries n_c/N: a contribution, not a mean"


def test_a_table_without_parts_is_empty_with_its_columns(writer):
    trace = open_trace(writer.path)
    assert trace.dataset("classes").count_rows() == 0
    assert trace.classes.dtypes.drop("split").astype(str).to_dict() == {
        column.name: {"double": "float64"}.get(str(column.type), str(column.type))
        for column in TABLES["classes"].columns
        if column.name != "split"
    }


def test_a_run_that_goes_on_shows_the_parts_that_are_there(writer):
    trace = open_trace(writer.path)
    assert trace.run["status"] == "running"
    assert repr(trace) == f"Trace({str(writer.path)!r}, running)"
    for step in (1, 2):
        writer.append("classes", step=step, split="train", class_id=[0, 1])
        writer.flush()
        assert len(trace.classes) == 2 * step


@pytest.mark.parametrize("name", ["lr=0.1", "a b%20#?*[x]", "_hidden", ".hidden", "s3:x"])
def test_a_run_may_have_any_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    writer = TraceWriter(name)
    writer.append("classes", step=1, split="train", class_id=0)
    writer.close("finished")
    assert len(open_trace(name).classes) == len(pd.read_parquet(tmp_path / name / "classes")) == 1


@pytest.mark.parametrize("read", [Trace.dataset, Trace.table])
@pytest.mark.parametrize("name", ["../run/classes", "/etc", "", ".", "Classes"])
def test_a_table_name_is_one_of_the_known_or_refused(trace, read, name):
    with pytest.raises(KeyError, match=r"there is no table .*; the nearest name is"):
        read(trace, name)


def test_an_unknown_column_gets_the_nearest(trace):
    with pytest.raises(KeyError, match="there is no column of classes 'acuracy'; the nearest name is 'accuracy'"):
        trace.table("classes", columns=["acuracy"])


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (None, "x is not a trace: it has no run.json"),
        ("{", r"x/run.json is not valid JSON: "),
        ("[" * 100_000, r"x/run.json is not valid JSON: "),
        ("\xff", r"x/run.json is not valid JSON: "),
        ("[]", "x is not a trace: its run.json has no schema_version"),
        ('{"schema_version": "1"}', "x is not a trace: its run.json has no schema_version"),
        (
            json.dumps({"schema_version": SCHEMA_VERSION + 1}),
            f"x has trace schema {SCHEMA_VERSION + 1}, imbdyn {imbdyn.__version__} reads up to {SCHEMA_VERSION}: up",
        ),
    ],
)
def test_what_is_not_a_trace_gets_one_sentence(tmp_path, run, message):
    (tmp_path / "x").mkdir()
    if run is not None:
        (tmp_path / "x" / "run.json").write_text(run, encoding="latin-1")
    with pytest.raises(TraceError, match=message):
        open_trace(tmp_path / "x")


def test_a_path_that_is_no_folder_gets_one_sentence(tmp_path):
    with pytest.raises(TraceError, match="nothing does not exist"):
        open_trace(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(TraceError, match="file is not a trace: a trace is a folder"):
        open_trace(tmp_path / "file")


def test_a_folder_of_runs_names_them(trace):
    trace.path.rename(trace.path.with_name("b"))
    (trace.path.with_name("a")).mkdir()
    (trace.path.with_name("a") / "run.json").write_text("{}")
    with pytest.raises(TraceError, match="is not a trace but holds 2: a, b; name one of them"):
        open_trace(trace.path.parent)


def test_pandas_reads_a_running_trace_without_imbdyn(writer, columns):
    for step in (1, 2):
        writer.append("classes", **columns("classes", step))
        writer.flush()
    writer.append("classes", **columns("classes", 3))  # waits
    (writer.path / "classes" / ".part-0000-000002.parquet.tmp").write_bytes(b"in the making")
    script = """
import sys, pandas, pyarrow.parquet
frame = pandas.read_parquet(sys.argv[1])
print(len(frame), frame["split"].dtype, frame["step"].tolist(), frame["loss"].isna().sum())
schema = pyarrow.parquet.read_table(sys.argv[1]).schema
described = {key.decode(): value.decode() for key, value in schema.field("margin").metadata.items()}
print(schema.metadata[b"imbdyn.key"].decode(), described)
assert not [name for name in sys.modules if name.startswith("imbdyn")]
"""
    # -I: neither the working folder nor PYTHONPATH is searched
    folder = str(writer.path / "classes")
    done = subprocess.run([sys.executable, "-I", "-c", script, folder], check=True, capture_output=True, text=True)
    margin = next(column for column in TABLES["classes"].columns if column.name == "margin")
    described = {"unit": margin.unit, "formula": margin.formula, "source": margin.source}
    assert done.stdout.splitlines() == ["8 category [1, 1, 1, 1, 2, 2, 2, 2] 2", f"step,split,class_id {described}"]


def test_a_trace_is_read_without_torch():
    script = "import sys, imbdyn; imbdyn.open_trace; print('imbdyn.trace' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "True False\n"


def test_frames_and_tables_hold_the_same_values(trace):
    table = trace.table("parameters")
    again = pa.Table.from_pandas(trace.parameters, schema=table.schema, preserve_index=False)
    assert again.column_names == table.column_names
    assert again["update_norm"].null_count == table["update_norm"].is_null(nan_is_null=True).to_pylist().count(True)
