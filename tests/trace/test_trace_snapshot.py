"""What a reader makes of parts, journal, ranks and resumptions: every row once. Traces made by hand from the format."""

import warnings
from pathlib import Path

import handmade
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from imbdyn.trace import TraceDamage, TraceError, TraceSet, open_trace
from imbdyn.trace import _snapshot as snapshot_module


def rows(*steps):
    return [{"step": step, "split": "train", "class_id": c, "loss": step + c / 10} for step in steps for c in (0, 1)]


def commits(*steps):
    return [{"classes": rows(step), "steps": [{"step": step, "split": "train"}]} for step in steps]


@pytest.fixture
def run(tmp_path):
    handmade.write_run(tmp_path / "run", status="running")
    return tmp_path / "run"


def steps_of(place, table="classes"):
    trace = open_trace(place)
    read = trace.table(table)["step"].to_pylist()
    assert sorted(trace.dataset(table).to_table()["step"].to_pylist()) == read
    assert trace.damage == []
    return read[::2] if table == "classes" else read


def test_the_journal_is_read_behind_the_parts(run):
    handmade.write_part(run, "classes", rows(1, 2), seals=2)
    handmade.write_segment(run, commits(3, 4), first=3)
    assert steps_of(run) == [1, 2, 3, 4]
    assert steps_of(run, "steps") == [3, 4]
    assert open_trace(run).table("classes", ["loss"], ds.field("step") == 4)["loss"].to_pylist() == [4.0, 4.1]


def test_a_record_that_is_sealed_is_not_doubled_table_by_table(run):
    # A crash after the part of classes was written, before that of steps, and before the segment was removed.
    handmade.write_segment(run, commits(1, 2, 3))
    handmade.write_part(run, "classes", rows(1, 2), seals=2)
    assert steps_of(run) == [1, 2, 3]
    assert steps_of(run, "steps") == [1, 2, 3]


def test_ranks_are_one_history(run):
    for rank in (0, 1):
        of_rank = [{**row, "class_id": row["class_id"] + 2 * rank} for row in rows(1)]
        handmade.write_part(run, "classes", of_rank, rank=rank, seals=1)
    # Rank 1 has sealed its record 1, rank 0 has a record 2.
    handmade.write_segment(run, commits(2), rank=0, first=2)
    handmade.write_segment(run, commits(1), rank=1, first=1)
    assert open_trace(run).table("classes")["class_id"].to_pylist() == [0, 1, 0, 1, 2, 3]


def test_steps_that_were_superseded_are_not_read(run):
    handmade.write_part(run, "classes", rows(*range(1, 9)), seals=8, group_rows=4)
    handmade.write_part(run, "classes", rows(6, 7), seals=10, sequence=1)
    handmade.write_part(run, "classes", rows(7, 8), seals=12, sequence=2)
    handmade.write_run(
        run,
        resumed=[{"step": 5, "parts": {"classes/0000": 1}}, {"step": 6, "parts": {"classes/0000": 2, "steps/0000": 0}}],
    )
    assert steps_of(run) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert open_trace(run).dataset("classes").count_rows() == 16


def test_a_part_that_stands_for_others_replaces_them(run):
    first = handmade.write_part(run, "classes", rows(1), seals=1)
    second = handmade.write_part(run, "classes", rows(2), seals=2, sequence=1)
    about = {"imbdyn.replaces": f"{first.name},{second.name}", "imbdyn.first_sequence": "0"}
    handmade.write_part(run, "classes", rows(1, 2), seals=2, sequence=1, about=about)
    assert steps_of(run) == [1, 2]


def test_a_column_that_a_part_or_the_journal_lacks_is_null_and_an_unknown_one_is_passed_over(run):
    table = handmade.rows_of("classes", rows(1)).drop_columns(["margin"])
    handmade.write_part(run, "classes", table, seals=1)
    read = open_trace(run).table("classes")
    assert read["margin"].null_count == 2
    assert read["loss"].to_pylist() == [1.0, 1.1]
    assert open_trace(run).dataset("classes").to_table()["margin"].null_count == 2


def test_a_segment_that_is_sealed_between_listing_and_reading_is_read_from_its_part(run, monkeypatch):
    segment = handmade.write_segment(run, commits(1, 2))
    read = snapshot_module._read

    def seal_first(folder, name):
        if segment.exists():
            handmade.write_part(run, "classes", rows(1, 2), seals=2)
            segment.unlink()
        return read(folder, name)

    monkeypatch.setattr(snapshot_module, "_read", seal_first)
    assert steps_of(run) == [1, 2]


def test_a_part_that_is_merged_between_listing_and_opening_is_looked_for_again(run, monkeypatch):
    old = handmade.write_part(run, "classes", rows(1), seals=1)
    opened = snapshot_module.open_part

    def merge_first(*arguments):
        if old.exists():
            handmade.write_part(run, "classes", rows(1), seals=1, about={"imbdyn.replaces": old.name})
            old.unlink()
        return opened(*arguments)

    monkeypatch.setattr(snapshot_module, "open_part", merge_first)
    assert steps_of(run) == [1]


def test_a_run_that_is_resumed_while_it_is_read_is_read_again(run, monkeypatch):
    handmade.write_part(run, "classes", rows(1, 2), seals=2)
    listed = snapshot_module.list_parts

    def resume_first(*arguments):
        if not list((run / "classes").glob("part-0000-00000001-*")):
            handmade.write_run(run, resumed=[{"step": 1, "parts": {"classes/0000": 1}}])
            handmade.write_part(run, "classes", rows(2), seals=3, sequence=1)
        return listed(*arguments)

    monkeypatch.setattr(snapshot_module, "list_parts", resume_first)
    assert steps_of(run) == [1, 2]


def test_a_record_that_is_being_written_is_waited_for(run, monkeypatch):
    segment = handmade.write_segment(run, commits(1, 2))
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-100])
    monkeypatch.setattr(snapshot_module.time, "sleep", lambda _: segment.write_bytes(whole))
    assert steps_of(run) == [1, 2]


def test_resumed_that_says_something_else_is_an_error(run):
    for resumed in ([{"step": 1}], [{"step": "1", "parts": {"classes/0000": 1}}], "x", [{"step": 1, "parts": [1]}]):
        handmade.write_run(run, resumed=resumed)
        with pytest.raises(TraceError, match="resumed"):
            _ = open_trace(run).classes


def test_several_runs_are_one_with_a_column_run(tmp_path):
    for name, step in (("seed0/balanced", 1), ("seed1/balanced", 2)):
        handmade.write_run(tmp_path / name)
        handmade.write_part(tmp_path / name, "classes", rows(step), seals=1)
        handmade.write_segment(tmp_path / name, commits(step + 2), first=2)
    (tmp_path / "seed2").mkdir()
    places = [tmp_path / "seed0/balanced", str(tmp_path / "seed1/balanced")]
    for place in (tuple(places), str(tmp_path / "*/bal*"), f"file://{tmp_path}/seed[0-9]/balanced"):
        traces = open_trace(place)
        assert isinstance(traces, TraceSet)
        assert list(traces.runs) == ["seed0/balanced", "seed1/balanced"]
        frame = traces.classes
        assert list(zip(frame["run"].str[4], frame["step"], strict=True))[::2] == [
            ("0", 1),
            ("0", 3),
            ("1", 2),
            ("1", 4),
        ]
        only = ds.field("run") == "seed1/balanced"
        assert traces.table("classes", ["step"], only)["step"].to_pylist() == [2, 2, 4, 4]
        assert traces.dataset("classes").to_table(filter=only)["step"].to_pylist() == [2, 2, 4, 4]
        assert traces.dataset("classes").schema == traces.schema("classes") == traces.table("classes").schema
    with pytest.raises(TraceError, match="each trace may be given once"):
        open_trace([places[0], places[0]])
    with pytest.raises(TraceError, match="no trace matches"):
        open_trace(str(tmp_path / "x*"))


def test_a_uri_is_read_as_a_path_is(run):
    handmade.write_part(run, "classes", rows(1), seals=1)
    trace = open_trace(f"file://{run}")
    assert trace.path.name == "run"
    assert len(trace.classes) == len(trace.dataset("classes").to_table()) == 2


def test_only_the_row_groups_that_a_filter_needs_are_read(run):
    path = handmade.write_part(run, "classes", rows(*range(1, 1001)), seals=1000, group_rows=100)
    data = bytearray(path.read_bytes())
    data[200] ^= 1  # in the first row group
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_trace(run).table("classes", filter=ds.field("step") > 990).num_rows == 20
    with pytest.warns(TraceDamage, match="row group 0 .* is damaged; its 100 rows are left out"):
        assert len(open_trace(run).classes) == 1900


def bytes_read_by_this_process():
    return int(Path("/proc/self/io").read_text().split()[1])


def test_a_filtered_read_reads_few_bytes(run):
    random = np.random.default_rng(0)
    size = 0
    for sequence in range(4):
        steps = np.arange(50_000) + 50_000 * sequence
        columns = {"step": steps, "split": ["train"] * 50_000, "class_id": np.zeros(50_000, "i4")}
        table = pa.table({**columns, "loss": random.random(50_000)})
        path = handmade.write_part(run, "classes", table, sequence=sequence, group_rows=5_000)
        size += path.stat().st_size
    trace = open_trace(run)
    trace.table("classes", filter=ds.field("step") < 0)  # footers
    for condition, groups in ((ds.field("step") == 77_777, 1), (ds.field("step") >= 189_000, 3)):
        before = bytes_read_by_this_process()
        assert trace.table("classes", filter=condition).num_rows == (1 if groups == 1 else 11_000)
        read = bytes_read_by_this_process() - before
        # of 40 row groups; run.json is read twice
        assert (groups - 1) * size / 40 < read < (groups + 1) * size / 40
