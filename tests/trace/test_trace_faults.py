"""What a crash, a full disk and an interrupt leave of a trace."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from imbdyn.trace import TraceWriter, _files, open_trace
from imbdyn.trace import writer as writer_module

KEY = {"split": "train", "class_id": [0, 1, 2]}


def steps_of(writer: TraceWriter) -> list[int]:
    return open_trace(writer.path).table("classes")["step"].to_pylist()


def break_rename(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, _target: Path) -> Path:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "replace", fail)


def test_a_part_that_could_not_be_named_leaves_nothing_and_is_written_next_time(writer, monkeypatch):
    writer.append("classes", step=1, **KEY)
    with monkeypatch.context() as broken:
        break_rename(broken)
        with pytest.raises(OSError, match="No space left"):
            writer.flush()
        assert list((writer.path / "classes").iterdir()) == []
        assert steps_of(writer) == []
    writer.append("classes", step=2, **KEY)
    writer.flush()
    assert [path.name for path in (writer.path / "classes").iterdir()] == ["part-0000-000000.parquet"]
    assert steps_of(writer) == [1, 1, 1, 2, 2, 2]


def test_a_reader_in_the_middle_of_a_flush_sees_only_whole_parts(writer, monkeypatch):
    writer.append("classes", step=1, **KEY)
    writer.flush()
    seen = []
    rename = Path.replace

    def read_then_rename(self: Path, target: Path) -> Path:
        if target.suffix == ".parquet":
            assert self.stat().st_size > 0
            seen.append((steps_of(writer), len(pd.read_parquet(target.parent)), sorted(target.parent.glob("[!.]*"))))
        return rename(self, target)

    writer.append("classes", step=2, **KEY)
    monkeypatch.setattr(Path, "replace", read_then_rename)
    writer.flush()
    assert seen == [([1, 1, 1], 3, [writer.path / "classes" / "part-0000-000000.parquet"])]
    assert steps_of(writer) == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("interrupted", ["before", "after"])
def test_an_interrupt_around_the_rename_loses_and_doubles_nothing(writer, monkeypatch, interrupted):
    rename = Path.replace

    def interrupt(self: Path, target: Path) -> Path:
        if interrupted == "after":
            rename(self, target)
        raise KeyboardInterrupt

    writer.append("classes", step=1, **KEY)
    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            writer.flush()
    writer.append("classes", step=2, **KEY)
    writer.close("interrupted")
    assert steps_of(writer) == [1, 1, 1, 2, 2, 2]


def test_a_folder_that_cannot_be_synced_doubles_nothing(writer, monkeypatch):
    def fail(_folder: Path) -> None:
        raise OSError(5, "Input/output error")

    writer.append("classes", step=1, **KEY)
    with monkeypatch.context() as broken:
        broken.setattr(_files, "sync_folder", fail)
        with pytest.raises(OSError, match="Input/output error"):
            writer.flush()
    writer.flush()
    assert steps_of(writer) == [1, 1, 1]


def test_a_process_killed_before_the_rename_leaves_a_readable_trace(tmp_path):
    script = f"""
import os, pathlib
from imbdyn.trace import TraceWriter
writer = TraceWriter({str(tmp_path / "run")!r})
writer.append("classes", step=1, split="train", class_id=[0, 1])
writer.flush()
pathlib.Path.replace = lambda self, target: os._exit(9)
writer.append("classes", step=2, split="train", class_id=[0, 1])
writer.flush()
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    leftover = tmp_path / "run" / "classes" / ".part-0000-000001.parquet.tmp"
    assert leftover.exists()
    assert list(open_trace(tmp_path / "run").classes["step"]) == [1, 1]
    assert len(pd.read_parquet(tmp_path / "run" / "classes")) == 2
    assert open_trace(tmp_path / "run").run["status"] == "running"


def test_a_full_disk_loses_no_row_and_leaves_no_file(tmp_path):
    script = f"""
import resource, numpy
from imbdyn.trace import TraceWriter, open_trace
writer = TraceWriter({str(tmp_path / "run")!r})
loss = numpy.random.default_rng(0).normal(size=5000)
writer.append("classes", step=1, split="train", class_id=range(5000), loss=loss)
writer.append("steps", step=1, split="train")
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
for _ in range(2):
    try:
        writer.flush()
    except OSError as error:
        print(error.errno, writer.waiting_rows, sorted(str(p.relative_to(writer.path)) for p in writer.path.rglob("*")))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.close("finished")
trace = open_trace(writer.path)
assert (trace.classes["loss"].to_numpy() == loss).all()
print(trace.run["dropped_rows"], len(trace.steps))
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    tried = "27 5000 ['classes', 'run.json', 'steps', 'steps/part-0000-000000.parquet']"
    assert done.stdout.splitlines() == [tried, tried, "0 1"]
    assert done.stderr == ""


def test_one_table_that_cannot_be_written_does_not_stop_the_others(writer):
    (writer.path / "classes").write_text("in the way")
    writer.append("classes", step=1, **KEY)
    writer.append("class_features", step=1, layer="fc", **KEY)
    with pytest.raises(OSError, match="classes"):
        writer.flush()
    assert writer.waiting_rows == 3
    assert len(open_trace(writer.path).class_features) == 3
    (writer.path / "classes").unlink()
    writer.flush()
    assert steps_of(writer) == [1, 1, 1]


def test_beyond_the_bound_the_oldest_rows_are_dropped_and_counted(writer, monkeypatch):
    monkeypatch.setattr(writer_module, "MAX_WAITING_ROWS", 4)
    for step in (1, 2, 3):
        writer.append("classes", step=step, **KEY)
    with monkeypatch.context() as broken:
        break_rename(broken)
        with pytest.raises(OSError, match="No space left"):
            writer.flush()
    assert (writer.waiting_rows, writer.dropped_rows) == (4, 5)
    writer.flush()
    assert steps_of(writer) == [2, 3, 3, 3]
    assert open_trace(writer.path).run["dropped_rows"] == 5


def test_a_full_disk_is_not_tried_again_at_every_step(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "FLUSH_ROWS", 3)
    writer = TraceWriter(tmp_path / "run")
    break_rename(monkeypatch)
    writer.append("classes", step=1, **KEY)
    with pytest.raises(OSError, match="No space left"):
        writer.maybe_flush()
    writer.maybe_flush()
    writer.append("classes", step=2, **KEY)
    with pytest.raises(OSError, match="No space left"):
        writer.maybe_flush()


def test_close_says_what_it_could_not_write_and_may_be_tried_again(writer):
    (writer.path / "classes").write_text("in the way")
    writer.append("classes", step=1, **KEY)
    with pytest.raises(OSError, match="classes"):
        writer.close("finished")
    run = open_trace(writer.path).run
    assert (run["status"], run["dropped_rows"]) == ("finished", 3)
    (writer.path / "classes").unlink()
    writer.close("finished")
    assert open_trace(writer.path).run["dropped_rows"] == 0
    assert steps_of(writer) == [1, 1, 1]
