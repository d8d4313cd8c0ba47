"""A trace from a stranger, whose checksums all hold: nothing is run, nothing escapes, memory stays bounded."""

import json
import struct
import subprocess
import sys
import zlib

import handmade
import pyarrow as pa
import pytest
from click.testing import CliRunner

from imbdyn.cli import main
from imbdyn.trace import TraceDamage, TraceError, TraceWriter, _run_folder, open_trace
from imbdyn.trace._format import ROW_GROUP_ROWS

ROW = {"step": 1, "split": "train", "class_id": 0}

#: Reads a trace with 2 GiB of address space above what the libraries take, and says what was found.
READ = """
import resource, sys, warnings, pyarrow as pa
from imbdyn.trace import open_trace
open_trace(sys.argv[2]).classes
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
warnings.simplefilter("ignore")
trace = open_trace(sys.argv[1])
print(len(trace.classes), [damage.problem for damage in trace.damage])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.fixture
def run(tmp_path):
    handmade.write_run(tmp_path / "run")
    return tmp_path / "run"


def read_within(run, tmp_path, megabytes):
    """Return what a process of its own found, and check how much memory it took beyond that of a small trace."""
    small = tmp_path / "small"
    handmade.write_run(small)
    handmade.write_part(small, "classes", [ROW])
    handmade.write_segment(small, [{"classes": [ROW]}])
    done = subprocess.run([sys.executable, "-c", READ, run, small], check=True, capture_output=True, text=True)
    found, grown = done.stdout.splitlines()
    assert int(grown) <= megabytes
    return found


def test_a_part_that_grows_a_thousandfold_is_refused_in_bounded_memory(run, tmp_path):
    # 600 names of a megabyte, each written out: 600 MB of zeros, less than one on disk.
    split = pa.DictionaryArray.from_arrays(pa.array([0] * 600, pa.int32()), ["0" * 1_000_000])
    table = pa.table({"step": [1] * 600, "split": split, "class_id": pa.array([0] * 600, pa.int32())})
    path = handmade.write_part(run, "classes", table, use_dictionary=False)
    assert path.stat().st_size < 600_000
    assert "are the most" in read_within(run, tmp_path, 100)


def test_a_name_that_is_repeated_into_gigabytes_is_refused_in_bounded_memory(run, tmp_path):
    rows = ROW_GROUP_ROWS
    split = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), ["x" * 1_000_000])
    table = pa.table({"step": range(rows), "split": split, "class_id": pa.array([0] * rows, pa.int32())})
    handmade.write_part(run, "classes", table)
    assert "its names in split have 131072000000 bytes" in read_within(run, tmp_path, 100)


def test_a_page_that_says_it_is_larger_than_its_column_is_refused(run, tmp_path):
    path = handmade.write_part(run, "classes", [ROW] * 50, compression="none", write_page_checksum=False)
    data = path.read_bytes()
    path.unlink()
    # The first page's header begins with type, uncompressed and compressed size: 15 xx 15 VARINT 15 VARINT.
    at = data.index(b"\x15", 4)
    assert data[at + 2] == 0x15
    broken = bytearray(data)
    first = 4
    broken[first : first + 8] = b"\x15\x04\x15\xfe\xff\xff\xff\x0f"
    footer = 8 + int.from_bytes(data[-8:-4], "little")
    old = f"{zlib.crc32(data[4:-footer]):08x}".encode()
    assert old in data
    forged = bytes(broken).replace(old, f"{zlib.crc32(bytes(broken[4:-footer])):08x}".encode())
    handmade.place_part(run, "classes", forged)
    assert read_within(run, tmp_path, 50).startswith("0 [")


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF, 10_000])
def test_an_absurd_length_in_the_journal_ends_its_valid_prefix(run, tmp_path, length):
    records = handmade.records_of(1, [{"classes": [ROW]}])
    handmade.place_segment(run, b"".join(records) + struct.pack("<II", length, 0) + b"x" * 100)
    found = read_within(run, tmp_path, 50)
    assert found.startswith("1 ['its record at byte")


def test_an_absurd_length_of_a_footer_is_refused(run, tmp_path):
    (run / "classes").mkdir()
    (run / "classes" / "part-0000-00000000-00000000.parquet").write_bytes(b"PAR1" + b"\xff\xff\xff\x7fPAR1")
    assert "its footer would have" in read_within(run, tmp_path, 50)


def test_a_compressed_record_is_refused_before_it_is_decompressed(run, tmp_path):
    schema = handmade.journal_schema()
    rows = [{**ROW, "split": "x" * 300_000_000}]
    batch = pa.RecordBatch.from_pylist([{"record": 1, "classes": rows}], schema=schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(batch)
    stream = sink.getvalue().to_pybytes()
    first = schema.serialize().to_pybytes()
    handmade.place_segment(run, handmade.record_of(first) + handmade.record_of(stream[len(first) : -8]))
    assert "a record is compressed" in read_within(run, tmp_path, 50)


@pytest.mark.parametrize(
    "payloads",
    [
        [b""],
        [b"\xff" * 64],
        [b"\xff\xff\xff\xff\x10\0\0\0" + b"\0" * 16],
        [struct.pack("<II", 0xFFFFFFFF, 8) + struct.pack("<Ii", 4, 2**31 - 1)],
        [pa.schema([("record", pa.string())]).serialize().to_pybytes()] * 2,
        [pa.schema([]).serialize().to_pybytes()] * 3,
    ],
)
def test_records_that_are_no_commits_are_refused(run, payloads):
    schema = handmade.journal_schema().serialize().to_pybytes()
    handmade.place_segment(run, b"".join(map(handmade.record_of, [schema, *payloads])))
    with pytest.warns(TraceDamage, match=r"0000-00000000.journal: .* left out"):
        assert len(open_trace(run).classes) == 0


def test_a_hostile_journal_is_not_sealed_when_its_run_is_resumed(run):
    schema = handmade.journal_schema().serialize().to_pybytes()
    handmade.place_segment(run, b"".join(map(handmade.record_of, [schema, pa.schema([]).serialize().to_pybytes()])))
    with pytest.raises(TraceError, match=r"0000-00000000.journal: .*; imbdyn check --repair first"):
        TraceWriter(run, resume=True)
    assert not (run / "classes").exists()


def test_a_run_json_of_absurd_size_is_refused(run, monkeypatch):
    monkeypatch.setattr(_run_folder, "MAX_RUN_BYTES", 10)
    with pytest.raises(TraceError, match=r"run.json has more than 10 bytes"):
        open_trace(run)


def test_no_path_is_made_from_what_a_trace_says(run, tmp_path):
    outside = tmp_path / "outside.parquet"
    part = handmade.write_part(run, "classes", [ROW], seals=1, about={"imbdyn.replaces": "../../outside.parquet"})
    part.rename(outside)
    part.write_bytes(outside.read_bytes())
    handmade.write_part(run, "classes", [{**ROW, "step": 2}], sequence=1, metadata_of="steps")
    handmade.write_run(run, resumed=[{"step": 9, "parts": {"../../x/0000": 3}}], status="finished")
    (run / "steps").symlink_to("/etc")
    with pytest.warns(TraceDamage, match="it is no part of classes"):
        assert len(open_trace(run).classes) == 1
    assert len(open_trace(run).steps) == 0
    for command in (["check", str(run), "--repair"], ["compact", str(run)], ["check", str(run)]):
        assert CliRunner().invoke(main, command).exit_code == 0
    assert outside.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside.parquet", "run"]


def test_control_characters_do_not_reach_the_terminal(run):
    handmade.write_run(run, status="\x1b[2J\x1b]0;mine\x07[bold]x[/bold]", lost=[{"what": "\x1b[31mred"}])
    handmade.write_segment(run, [{"classes": [{**ROW, "split": "\x1b[2J"}] * 2}])
    for arguments in (["check", str(run)], ["export", f"{run}\x1b[2J", "--format", "csv"]):
        result = CliRunner().invoke(main, arguments)
        assert "\x1b" not in result.output
        assert result.output
    assert "[bold]x[/bold]" in CliRunner().invoke(main, ["check", str(run)]).output
    told = json.loads(CliRunner().invoke(main, ["check", str(run), "--json"]).output)
    assert not told["ok"]
