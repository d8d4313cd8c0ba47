"""Cut off every byte, flip random ones: the reader returns whole batches and names the file, never a wrong number."""

import shutil
import warnings

import handmade
import numpy as np
import pytest

from imbdyn.trace import TraceDamage, TraceError, open_trace
from imbdyn.trace import _snapshot as snapshot_module
from imbdyn.trace._segments import parse_segment

TABLES = ("steps", "classes")


def rows_at(step):
    return {
        "steps": [{"step": step, "split": "train", "loss": step / 7}],
        "classes": [{"step": step, "split": "train", "class_id": c, "loss": step + c / 7} for c in range(4)],
    }


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Steps 1 to 12 in two parts a table, 13 to 16 in two segments of the journal."""
    monkeypatch.setattr(snapshot_module, "_WRITE_SECONDS", 0)
    run = tmp_path / "run"
    handmade.write_run(run, resumed=[{"step": 90, "parts": {"classes/0000": 2}}], config={"classes": [1, 2, 3]})
    for sequence in (0, 1):
        steps = range(1 + 6 * sequence, 7 + 6 * sequence)
        for table in TABLES:
            rows = [row for step in steps for row in rows_at(step)[table]]
            handmade.write_part(run, table, rows, sequence=sequence, seals=steps[-1], group_rows=10)
        journalled = (13 + 2 * sequence, 14 + 2 * sequence)
        commits = [rows_at(step) for step in journalled]
        handmade.write_segment(run, commits, sequence=sequence, first=journalled[0])
    return run


EXPECTED = {table: {repr(row) for step in range(1, 17) for row in rows_at(step)[table]} for table in TABLES}


def read(run):
    """Return the rows of each table, and what was told; no error but TraceError may come."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TraceDamage)
        try:
            trace = open_trace(run)
            found = {table: trace.table(table, list(rows_at(1)[table][0])).to_pylist() for table in TABLES}
        except TraceError as error:
            return None, [str(error)]
    return found, [str(damage) for damage in trace.damage]


def check(run, name):
    found, told = read(run)
    assert all(name in message for message in told)
    if found is None:
        return
    for table, rows in found.items():
        seen = [repr(row) for row in rows]
        assert len(set(seen)) == len(seen)
        assert set(seen) <= EXPECTED[table]
        assert told or set(seen) == EXPECTED[table]


def test_the_whole_trace_is_read(run):
    found, told = read(run)
    assert told == []
    assert {table: {repr(row) for row in rows} for table, rows in found.items()} == EXPECTED


def test_of_a_journal_cut_at_any_byte_the_whole_commits_are_read(run):
    path = run / "_journal" / "0000-00000001.journal"
    whole = path.read_bytes()
    records = handmade.records_of(15, [rows_at(15), rows_at(16)])
    ends = [8 + sum(map(len, records[: count + 1])) for count in range(3)]
    assert ends[2] == len(whole)
    for length in range(len(whole)):
        segment = parse_segment(whole[:length])
        assert len(segment.commits) == sum(length >= end for end in ends[1:])
        assert (segment.problem is None) == (length in (0, 8, *ends))
    for length in (0, 1, 8, 9, 15, 16, ends[0], ends[1] - 1, ends[1], ends[1] + 1, ends[1] + 8, ends[2] - 1):
        path.write_bytes(whole[:length])
        found, told = read(run)
        commits = 14 + (length >= ends[1])
        assert [row["step"] for row in found["steps"]] == list(range(1, commits + 1))
        assert len(told) == (length not in (0, 8, *ends))
        assert all("0000-00000001.journal" in message for message in told)


def mutate(run, times, seed):
    random = np.random.default_rng(seed)
    files = sorted(path for path in run.rglob("*") if path.is_file())
    for _ in range(times):
        path = files[random.integers(len(files))]
        whole = path.read_bytes()
        data = bytearray(whole)
        for place in random.integers(len(data), size=random.integers(1, 5)):
            data[place] ^= random.integers(1, 256)
        path.write_bytes(data)
        try:
            check(run, path.name)
        finally:
            path.write_bytes(whole)


def test_no_flipped_byte_yields_a_wrong_number(run):
    mutate(run, 100, seed=0)


@pytest.mark.nightly
def test_no_flipped_byte_yields_a_wrong_number_in_ten_thousand_tries(run):
    mutate(run, 10_000, seed=1)


@pytest.mark.parametrize("cut", [0, 1, 3, 8, 100, -1, -9])
def test_a_part_or_run_json_that_is_cut_is_named(run, cut):
    for path in [*(run / "classes").iterdir(), run / "run.json"]:
        whole = path.read_bytes()
        path.write_bytes(whole[:cut])
        found, told = read(run)
        assert len(told) == 1
        assert path.name in told[0]
        if found is not None:
            assert len(found["classes"]) == 64 - 24
            assert len(found["steps"]) == 16
        path.write_bytes(whole)


def test_a_table_that_is_no_folder_and_a_missing_journal_are_empty(run):
    shutil.rmtree(run / "_journal")
    shutil.rmtree(run / "steps")
    (run / "steps").write_text("in the way")
    found, told = read(run)
    assert (len(found["steps"]), len(found["classes"]), told) == (0, 48, [])
