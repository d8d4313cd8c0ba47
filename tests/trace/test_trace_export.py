import io
import json
import subprocess
import sys

import click
import handmade
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from imbdyn.cli.export import command
from imbdyn.trace import export as export_module
from imbdyn.trace import open_trace
from imbdyn.trace.export import FORMATS, TENSORBOARD, export_table
from imbdyn.trace.schema import TABLES


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return lambda *arguments: CliRunner().invoke(command, [str(argument) for argument in arguments])


def exported(trace, table, format):
    sink = io.BytesIO()
    assert export_table(trace, table, format, sink) == 32
    sink.seek(0)
    return sink


@pytest.mark.parametrize("table", TABLES)
def test_arrow_and_parquet_equal_the_table_with_its_metadata(trace, table):
    for read in (
        pa.ipc.open_file(exported(trace, table, "arrow")).read_all,
        pq.ParquetFile(exported(trace, table, "parquet")).read,
    ):
        read_back, expected = read(), trace.table(table)
        assert repr(read_back.to_pylist()) == repr(expected.to_pylist())
        assert read_back.schema.equals(expected.schema, check_metadata=True)


@pytest.mark.parametrize("table", TABLES)
def test_json_lines_equal_the_table(trace, table):
    special = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
    reals = {column.name for column in TABLES[table].columns if column.type == pa.float64()}

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    rows = [json.loads(line, parse_constant=refuse) for line in exported(trace, table, "jsonl")]
    rows = [{k: special.get(v, v) if k in reals else v for k, v in row.items()} for row in rows]
    assert repr(rows) == repr(trace.table(table).to_pylist())


@pytest.mark.parametrize("table", TABLES)
def test_csv_equals_the_table_to_the_last_bit(trace, table):
    expected = trace.table(table)
    read_back = pyarrow.csv.read_csv(
        exported(trace, table, "csv"),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=expected.schema, null_values=[""], quoted_strings_can_be_null=False
        ),
    ).to_pylist()
    names = [field.name for field in expected.schema if pa.types.is_string(field.type)]
    for row in read_back:
        for name in names:
            assert not row[name].startswith(("=", "+", "-", "@"))
            row[name] = row[name].removeprefix("'")
    assert repr(read_back) == repr(expected.to_pylist())


def test_pandas_reads_the_csv(trace):
    frame = pd.read_csv(exported(trace, "classes", "csv"))
    assert frame["loss"].isna().tolist() == trace.classes["loss"].isna().tolist()
    assert frame["count"].tolist() == trace.classes["count"].tolist()


def test_csv_tells_null_from_nan_and_text_from_formula(writer, invoke):
    writer.append(
        "features", step=1, split=["=A1", "+1", "-1", "@x", "'y", "a=b"], layer="", nc1=float("nan"), nc2_norm=None
    )
    writer.flush()
    result = invoke(writer.path, "--format", "csv", "--table", "features", "-o", "-")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        '"step","split","layer","count","nc1","nc1_sample","nc2_norm","nc2_angle","nc3","nc4"',
        *(f'1,"{name}","",,nan,,,,,' for name in ["''y", "'+1", "'-1", "'=A1", "'@x", "a=b"]),
    ]


def test_small_parts_are_joined_and_large_ones_streamed(writer, monkeypatch):
    for step in range(10):
        writer.append("classes", step=step, split="train", class_id=range(100))
        writer.flush()
    monkeypatch.setattr(export_module, "BATCH_ROWS", 600)
    batches = []

    def watch(_schema, stream, _sink):
        batches.extend(batch.num_rows for batch in stream)

    monkeypatch.setitem(FORMATS, "csv", watch)
    assert export_table(open_trace(writer.path), "classes", "csv", io.BytesIO()) == 1000
    assert batches == [300, 300, 300, 100]


@pytest.mark.parametrize("format", FORMATS)
def test_an_empty_table_is_a_valid_file(writer, invoke, format):
    result = invoke(writer.path, "--format", format, "-o", "empty")
    assert (result.exit_code, result.output) == (0, "0 rows of classes in empty\n")
    readers = {
        "csv": pd.read_csv,
        "jsonl": lambda path: pd.read_json(path, lines=True),
        "arrow": pd.read_feather,
        "parquet": pd.read_parquet,
    }
    assert len(readers[format]("empty")) == 0


@pytest.mark.parametrize("format", FORMATS)
def test_the_command_names_the_file_after_run_and_table(trace, invoke, tmp_path, format):
    result = invoke(trace.path, "--format", format, "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    assert [path.name for path in (tmp_path / "cwd").iterdir()] == [f"run-classes.{format}"]
    assert (tmp_path / "cwd" / f"run-classes.{format}").read_bytes() == exported(trace, "classes", format).read()


@pytest.mark.parametrize("format", FORMATS)
def test_a_dash_is_standard_output(trace, format):
    script = "from imbdyn.cli.export import command; command()"
    arguments = [str(trace.path), "--format", format, "-o", "-"]
    done = subprocess.run([sys.executable, "-c", script, *arguments], check=True, capture_output=True)
    assert (done.stdout, done.stderr) == (exported(trace, "classes", format).read(), b"")


def test_a_reader_that_goes_away_ends_the_export_quietly(writer):
    writer.append("classes", step=1, split="train", class_id=range(200_000))
    writer.close("finished")
    script = "from imbdyn.cli.export import command; command()"
    arguments = [sys.executable, "-c", script, str(writer.path), "--format", "csv", "-o", "-"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_an_existing_file_is_kept_without_force(trace, invoke, tmp_path):
    file = tmp_path / "cwd" / "x.csv"
    file.write_text("mine")
    result = invoke(trace.path, "--format", "csv", "-o", "x.csv")
    assert result.exit_code == 2
    assert "Error: x.csv exists; --force replaces it" in result.output
    assert file.read_text() == "mine"
    assert invoke(trace.path, "--format", "csv", "-o", "x.csv", "--force").exit_code == 0
    assert file.read_bytes() == exported(trace, "classes", "csv").read()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--table", "clases"], "there is no table 'clases'; the nearest name is 'classes'"),
        (["--table", "../run/classes"], "there is no table '../run/classes'"),
        (["-o", "missing/x.csv"], "missing is not a folder"),
        (["-o", "/dev/null", "--force"], "/dev/null is not a regular file; -o - writes to standard output"),
        (["--format", "xls"], "'xls' is not one of 'csv', 'jsonl', 'arrow', 'parquet'"),
    ],
)
def test_a_users_mistake_is_one_sentence_and_exit_code_2(trace, invoke, tmp_path, arguments, message):
    result = invoke(trace.path, "--format", "csv", *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert list((tmp_path / "cwd").iterdir()) == []


def test_what_is_not_a_trace_is_exit_code_2(invoke, tmp_path):
    result = invoke(tmp_path, "--format", "csv")
    assert result.exit_code == 2
    assert "is not a trace: it has no run.json" in result.output


def test_what_a_broken_part_leaves_is_written_with_a_warning_and_exit_code_1(trace, invoke):
    part = sorted((trace.path / "classes").iterdir())[1]
    part.write_bytes(b"PAR1 torn PAR1")
    result = invoke(trace.path, "--format", "csv")
    length = int.from_bytes(b"orn ", "little") + 8
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        f"Warning: {part}: its footer would have {length} of its 14 bytes; the part is left out",
        "12 rows of classes in run-classes.csv",
    ]
    assert len(pd.read_csv("run-classes.csv")) == 12


def read_csv(result):
    assert result.exit_code == 0, result.output
    return pd.read_csv(io.StringIO(result.stdout))


def test_since_where_and_columns_choose_rows_and_columns(trace, invoke):
    arguments = ["--since", 4, "--where", "class_id in (1, 2) and step < 7", "--columns", "class_id, step", "-o", "-"]
    frame = read_csv(invoke(trace.path, "--format", "csv", *arguments))
    assert list(frame.columns) == ["class_id", "step"]
    classes = trace.classes
    expected = classes[classes.class_id.isin([1, 2]) & (classes.step >= 4) & (classes.step < 7)]
    assert sorted(zip(frame.step, frame.class_id, strict=True)) == sorted(
        zip(expected.step, expected.class_id, strict=True)
    )


def test_a_pattern_of_runs_is_exported_as_one(trace, invoke):
    frame = read_csv(invoke(f"{trace.path.parent}/r?n", "--format", "csv", "--columns", "run,step", "-o", "-"))
    assert set(frame["run"]) == {"run"}
    assert len(frame) == 32


def test_a_progress_bar_is_shown_on_a_terminal_only(trace, monkeypatch, capfd):
    from imbdyn.cli import export as export_cli

    with export_cli._progress("csv", quiet=False) as on_read:
        assert on_read is None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with export_cli._progress("csv", quiet=True) as on_read:
        assert on_read is None
    with export_cli._progress("csv", quiet=False) as on_read:
        export_table(trace, "classes", "csv", io.BytesIO(), on_read=on_read)
    assert "row groups" in capfd.readouterr().err


def test_memory_does_not_grow_with_the_trace(tmp_path):
    handmade.write_run(tmp_path / "run")
    rows = 500_000
    columns = {"step": range(rows), "split": ["train"] * rows, "class_id": [0] * rows, "loss": np.arange(rows) / 7}
    table = pa.table(columns).cast(pa.schema([handmade.plain("classes").field(name) for name in columns]))
    for sequence in range(3):
        handmade.write_part(tmp_path / "run", "classes", table, sequence=sequence)
    script = """
import sys, pyarrow as pa
from imbdyn.trace import open_trace
from imbdyn.trace.export import export_table
print(export_table(open_trace(sys.argv[1]), "classes", "csv", open("/dev/null", "wb")), pa.total_allocated_bytes())
print(pa.default_memory_pool().max_memory())
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "run"], check=True, capture_output=True, text=True)
    rows_written, most = done.stdout.split()[0], int(done.stdout.split()[-1])
    assert rows_written == "1500000"
    # A row group is 131,072 rows of 14 columns, 13 MB, and the table 150 MB. It is held as decoded and as joined with
    # what waited.
    assert most < 100e6


def test_the_command_offers_every_format():
    option = next(parameter for parameter in command.params if parameter.name == "format_")
    assert isinstance(option.type, click.Choice)
    assert list(option.type.choices) == [*FORMATS, TENSORBOARD]
