"""A trace that is looked at again and again: the same rows as a fresh reader's, each part read once."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic, sleep

import pandas as pd
import pyarrow.dataset as ds
import pytest

from imbdyn.trace import LiveTrace, NoTraceError, TraceWriter, open_trace
from imbdyn.trace._run_folder import RunFolder
from imbdyn.trace._writing import is_written_here
from imbdyn.trace.compact import compact
from imbdyn.trace.live import SILENT_SECONDS
from imbdyn.trace.schema import TABLES

WHOLE = ds.field("parameter") == "*"


@pytest.fixture
def add(writer, columns):
    def add(*steps):
        for step in steps:
            for table in TABLES:
                writer.append(table, **columns(table, step))
            writer.commit()

    return add


@pytest.fixture
def read(monkeypatch):
    """The parts of which row groups were read."""
    parts = []
    read = LiveTrace._read

    def counted(self, piece, *arguments):
        parts.append(piece.part.name)
        return read(self, piece, *arguments)

    monkeypatch.setattr(LiveTrace, "_read", counted)
    return parts


def same(live, place):
    fresh = open_trace(place)
    for table in TABLES:
        pd.testing.assert_frame_equal(live.frame(table), fresh.frame(table))
    pd.testing.assert_frame_equal(live.frame("class_gradients", WHOLE), fresh.frame("class_gradients", WHOLE))


def test_it_grows_as_a_fresh_reader_sees_it(writer, add):
    live = LiveTrace(writer.path)
    assert live.classes.empty
    for steps, seal in (((1, 2), False), ((4,), True), ((3, 5), False), ((6,), True), ((7, 8), False)):
        add(*steps)
        if seal:
            writer.flush()
        assert live.refresh()
        same(live, writer.path)
    writer.close("finished")
    assert live.refresh()
    assert live.run["status"] == "finished"
    same(live, writer.path)


def test_each_part_is_read_once_and_nothing_if_nothing_came(writer, add, read):
    live = LiveTrace(writer.path)
    for steps in ((1, 2), (3,), (4,)):
        add(*steps)
        writer.flush()
        read.clear()
        assert live.refresh()
        assert len(live.classes) == 4 * max(steps)
        assert len(read) == 1
    read.clear()
    add(5)
    assert live.refresh()
    assert len(live.classes) == 20
    assert not live.refresh()
    assert read == []


def test_between_refreshes_it_stands_still(writer, add):
    live = LiveTrace(writer.path)
    assert len(live.classes) == 0
    add(1)
    assert len(live.classes) == 0
    assert live.refresh()
    assert len(live.classes) == 4
    assert live.frozen() is live


def test_what_happens_while_it_is_opened_is_seen(writer, monkeypatch):
    listed = RunFolder.written

    def written(folder):
        monkeypatch.undo()
        writer.close("finished")
        return listed(folder)

    monkeypatch.setattr(RunFolder, "written", written)
    live = LiveTrace(writer.path)
    live.refresh()
    assert live.run["status"] == "finished"


def test_rows_that_a_resumed_run_supersedes_go(writer, add, columns):
    add(1, 2, 3)
    live = LiveTrace(writer.path)
    assert len(live.classes) == 12
    writer.close("interrupted")
    resumed = TraceWriter(writer.path, resume=True)
    resumed.resume_after(1)
    resumed.append("classes", **columns("classes", 9))
    resumed.commit()
    assert live.refresh()
    assert sorted(live.classes["step"].unique()) == [1, 9]
    same(live, writer.path)
    resumed.close("finished")


def test_parts_that_were_merged_are_not_doubled(writer, columns):
    live = LiveTrace(writer.path)
    for step in (1, 2, 3):
        writer.append("classes", **columns("classes", step))
        writer.flush()
    live.refresh()
    assert len(live.classes) == 12
    writer.close("finished")
    assert compact(writer.path)
    assert live.refresh()
    same(live, writer.path)


def test_of_a_uri_it_sees_what_was_sealed(writer, add):
    live = LiveTrace(Path(writer.path).as_uri())
    add(1)
    writer.flush()
    assert live.refresh()
    assert len(live.classes) == 4


def test_a_trace_that_is_gone_is_no_trace(trace):
    live = LiveTrace(trace.path)
    (trace.path / "run.json").unlink()
    with pytest.raises(NoTraceError):
        live.refresh()


def test_a_run_is_abandoned_when_its_writer_is_gone(writer, add, monkeypatch):
    add(1)
    live = LiveTrace(writer.path)
    assert not live.is_abandoned()
    monkeypatch.setattr("imbdyn.trace.live.is_written_here", lambda _: False)
    assert live.is_abandoned()
    assert live.is_abandoned()  # not only the first time
    assert not LiveTrace(writer.path).is_abandoned()  # it may be another machine's
    writer.close("finished")
    assert not live.is_abandoned()


@pytest.mark.parametrize("seconds", [SILENT_SECONDS / 2, SILENT_SECONDS * 2])
def test_a_run_that_nobody_has_open_is_abandoned_after_a_long_silence(writer, add, monkeypatch, seconds):
    add(1)
    for file in writer.path.rglob("*"):
        written = file.stat().st_mtime - seconds
        os.utime(file, (written, written))
    live = LiveTrace(writer.path)
    assert not live.is_abandoned()
    monkeypatch.setattr("imbdyn.trace.live.is_written_here", lambda _: False)
    assert LiveTrace(writer.path).is_abandoned() == (seconds > SILENT_SECONDS)
    writer.close("finished")


def test_a_writer_is_seen_between_two_segments_too(writer, add):
    add(1)
    writer.flush()
    assert is_written_here(writer.path)
    writer.close("finished")
    assert not is_written_here(writer.path)


def test_a_run_in_a_store_is_looked_at_as_its_parts_come(uri, columns, read):
    writer = TraceWriter(uri)
    live = LiveTrace(uri)
    assert live.classes.empty
    for step in (1, 2):
        writer.append("classes", **columns("classes", step))
        writer.commit()
        writer.flush()
        end = monotonic() + 60
        while len(live.classes) < 4 * step:
            assert monotonic() < end, "its part has not come"
            sleep(0.05)
            live.refresh()
    pd.testing.assert_frame_equal(live.classes, open_trace(uri).classes)
    assert not live.is_abandoned()
    writer.close("finished")
    assert live.refresh()
    assert live.run["status"] == "finished"
    assert len(set(read)) == len(read) == 2
