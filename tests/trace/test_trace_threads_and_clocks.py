"""A forked process, two threads, a clock that goes backwards, and when the journal is put on disk."""

import os
import threading
import time

import pytest
from class_rows import KEY, sealed_steps, steps_of, wait_until, wait_until_sealed

from imbdyn.trace import TraceWriter, open_trace
from imbdyn.trace import writer as writer_module
from imbdyn.trace._journal import Segment


def test_a_forked_process_writes_nothing_into_its_parents_trace(writer):
    writer.append("classes", step=1, **KEY)
    writer.commit()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            try:
                writer.append("classes", step=2, **KEY)
            except ValueError as error:
                code = 0 if "was forked from the one that writes" in str(error) else 2
            writer.rollback()
            writer.update_run(status="child")
            writer.flush()
            writer.close("failed")
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    writer.append("classes", step=3, **KEY)
    writer.close("finished")
    assert steps_of(writer.path) == [1, 1, 1, 3, 3, 3]
    assert open_trace(writer.path).run["status"] == "finished"


def test_two_threads_lose_and_double_nothing(tmp_path):
    writer = TraceWriter(tmp_path / "run", flush_seconds=0.01)
    errors = []

    def write(first: int) -> None:
        try:
            for step in range(first, first + 200):
                writer.append("classes", step=step, **KEY)
                writer.commit()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close("finished")
    assert errors == []
    expected = [*range(200), *range(1000, 1200)]
    assert steps_of(writer.path) == sorted(3 * expected)


def test_a_clock_that_goes_backwards_changes_nothing(tmp_path, monkeypatch):
    writer = TraceWriter(tmp_path / "run", flush_seconds=0.02)

    class Earlier(writer_module.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(1999, 1, 1, tzinfo=tz)

    monkeypatch.setattr(writer_module, "datetime", Earlier)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    writer.append("classes", step=1, **KEY)
    writer.commit()
    wait_until_sealed(writer)
    writer.close("finished")
    run = open_trace(writer.path).run
    assert run["started"] <= run["ended"]
    assert sealed_steps(writer) == [1, 1, 1]


def test_the_journal_is_put_on_disk_every_fsync_seconds(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(Segment, "sync", lambda self: synced.append(self.last_record))
    writer = TraceWriter(tmp_path / "run", fsync_seconds=0.02)
    writer.append("classes", step=1, **KEY)
    writer.commit()
    wait_until(lambda: 1 in synced)
    assert open_trace(writer.path).run["fsync_seconds"] == 0.02


def test_a_sync_that_failed_is_done_again(writer, monkeypatch):
    writer.append("classes", step=1, **KEY)
    writer.commit()
    synced = []

    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output error"):
            writer.sync()
    with monkeypatch.context() as watched:
        watched.setattr(os, "fsync", synced.append)
        writer.sync()
        writer.sync()
    assert len(synced) == 2, "the segment and the name of it in its folder, once"
