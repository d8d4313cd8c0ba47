"""What a crash, a full disk and an interrupt leave of a trace."""

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from class_rows import KEY, sealed_steps, steps_of, wait_until, wait_until_sealed
from reference_trace_reader import read_journal, read_table

from imbdyn.trace import TraceWriter, _commits, _run_record, _sealer, open_trace
from imbdyn.trace import writer as writer_module


def parts(writer: TraceWriter, table: str) -> list[str]:
    return [path.name[:-17] for path in sorted((writer.path / table).iterdir())]


def break_rename(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, _target: Path) -> Path:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "replace", fail)


def break_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int, _pieces: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "writev", fail)


def python(script: str, *arguments: str, code: int = 0) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, ""), done.stderr
    return done.stdout.splitlines()


def test_a_part_that_could_not_be_named_leaves_nothing_and_is_written_next_time(writer, monkeypatch):
    writer.append("classes", step=1, **KEY)
    with monkeypatch.context() as broken:
        break_rename(broken)
        with pytest.raises(OSError, match="No space left"):
            writer.flush()
        assert list((writer.path / "classes").iterdir()) == []
        assert steps_of(writer.path) == [1, 1, 1], "it is in the journal"
    writer.append("classes", step=2, **KEY)
    writer.flush()
    assert parts(writer, "classes") == ["part-0000-00000000", "part-0000-00000001"]
    assert steps_of(writer.path) == sealed_steps(writer) == [1, 1, 1, 2, 2, 2]


def test_a_reader_in_the_middle_of_a_seal_sees_whole_parts_and_every_row_once(writer, monkeypatch):
    writer.append("classes", step=1, **KEY)
    writer.flush()
    seen = []
    rename, remove = Path.replace, _sealer.Sealer.remove

    def look() -> None:
        seen.append((steps_of(writer.path), len(pd.read_parquet(writer.path / "classes"))))

    def look_and_rename(self: Path, target: Path) -> Path:
        if target.suffix == ".parquet":
            look()
        return rename(self, target)

    def look_and_remove(self: _sealer.Sealer, segment: Path) -> None:
        look()
        remove(self, segment)

    writer.append("classes", step=2, **KEY)
    monkeypatch.setattr(Path, "replace", look_and_rename)
    monkeypatch.setattr(_sealer.Sealer, "remove", look_and_remove)
    writer.flush()
    assert seen == [([1, 1, 1, 2, 2, 2], 3), ([1, 1, 1, 2, 2, 2], 6)]


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
    assert steps_of(writer.path) == sealed_steps(writer) == [1, 1, 1, 2, 2, 2]


COMMIT_FILES = {
    str(Path(writer_module.__file__).with_name(name))
    for name in ("writer.py", "_commits.py", "_journal.py", "_pending.py")
}


def test_an_interrupt_at_any_line_of_a_commit_loses_and_doubles_nothing(tmp_path):
    line = -1
    reached = True
    while reached:
        line += 1
        left = line

        def trace(frame, event, _argument):
            nonlocal left
            if frame.f_code.co_filename not in COMMIT_FILES:
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return trace

        writer = TraceWriter(tmp_path / f"run{line}")
        writer.append("classes", step=1, **KEY)
        writer.commit()
        writer.append("classes", step=2, **KEY)
        before = sys.gettrace()
        try:
            sys.settrace(trace)
            writer.commit()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        reached = left < 0
        writer.append("classes", step=3, **KEY)
        writer.close("interrupted")
        assert steps_of(writer.path) == [1, 1, 1, 2, 2, 2, 3, 3, 3], f"interrupted at line {line}"
    assert line > 30


def test_a_folder_that_cannot_be_synced_doubles_nothing(writer, monkeypatch):
    def fail(_folder: Path) -> None:
        raise OSError(5, "Input/output error")

    writer.append("classes", step=1, **KEY)
    with monkeypatch.context() as broken:
        broken.setattr(_sealer, "sync_folder", fail)
        with pytest.raises(OSError, match="Input/output error"):
            writer.flush()
    writer.flush()
    assert steps_of(writer.path) == sealed_steps(writer) == [1, 1, 1]


def test_a_process_killed_before_the_rename_leaves_a_readable_trace(tmp_path):
    script = """
import os, pathlib, sys
from imbdyn.trace import TraceWriter
writer = TraceWriter(sys.argv[1])
writer.append("classes", step=1, split="train", class_id=[0, 1])
writer.flush()
pathlib.Path.replace = lambda self, target: os._exit(9)
writer.append("classes", step=2, split="train", class_id=[0, 1])
writer.flush()
"""
    python(script, str(tmp_path / "run"), code=9)
    assert (tmp_path / "run" / "classes" / ".part-0000-00000001.parquet.tmp").exists()
    assert steps_of(tmp_path / "run") == [1, 1, 2, 2]
    assert len(pd.read_parquet(tmp_path / "run" / "classes")) == 2
    assert open_trace(tmp_path / "run").run["status"] == "running"


def test_files_that_cannot_grow_lose_no_row_and_leave_no_file(tmp_path):
    script = """
import resource, sys, numpy
from imbdyn.trace import TraceWriter
writer = TraceWriter(sys.argv[1])
loss = numpy.random.default_rng(0).normal(size=5000)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
writer.append("classes", step=1, split="train", class_id=range(5000), loss=loss)
try:
    writer.commit()
except OSError as error:
    print(error.errno, writer.waiting_rows, writer.pressure)
writer.append("steps", step=1, split="train")
writer.commit()
print(sorted(str(p.relative_to(writer.path)) for p in writer.path.rglob("*")))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.close("finished")
"""
    assert python(script, str(tmp_path / "run")) == [
        "27 5000 the disk takes no rows",
        "['_journal', '_journal/0000-00000000.journal', 'run.json']",
    ]
    assert steps_of(tmp_path / "run") == [1] * 5000
    assert len(read_table(tmp_path / "run", "steps")) == 1
    assert open_trace(tmp_path / "run").run["dropped_rows"] == 0


def test_what_was_dropped_is_told_by_a_disk_that_is_full_to_the_last_byte(tmp_path, monkeypatch):
    writer = TraceWriter(tmp_path / "run")
    held = writer._run._reserve._descriptor
    whole_file = _run_record.whole_file

    def full(path):
        if os.fstat(held).st_size:
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole_file(path)

    monkeypatch.setattr(_run_record, "whole_file", full)
    writer.update_run(what="is to be said")
    writer.flush()
    assert open_trace(tmp_path / "run").run["what"] == "is to be said"
    monkeypatch.undo()
    writer.close("finished")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(held)


def test_a_disk_of_one_mebibyte_takes_what_it_can_and_the_rest_is_counted(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs privileges")
    try:
        writer = TraceWriter(disk / "run")
        committed = refused = 0
        for step in range(100):
            writer.append("classes", step=step, split="train", class_id=range(1000), loss=0.5 * step)
            try:
                writer.commit()
                committed += writer.waiting_rows == 0
            except OSError:
                refused += 1
        assert committed > 3
        assert refused > 0
        assert writer.pressure is not None
        with pytest.raises(OSError, match="No space left"):
            writer.close("finished")
        seen = steps_of(disk / "run")
        assert len(seen) == len(set(seen)) * 1000, "a commit is there as a whole"
        run = open_trace(disk / "run").run
        assert len(seen) + run["dropped_rows"] == 100_000
        assert run["status"] == "finished"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_one_table_that_cannot_be_written_does_not_stop_the_others(writer):
    (writer.path / "classes").write_text("in the way")
    writer.append("classes", step=1, **KEY)
    writer.append("class_features", step=1, layer="fc", **KEY)
    with pytest.raises(OSError, match="classes"):
        writer.flush()
    assert len(open_trace(writer.path).class_features) == 3
    (writer.path / "classes").unlink()
    writer.flush()
    assert sealed_steps(writer) == [1, 1, 1]
    assert len(open_trace(writer.path).class_features) == 3


def test_beyond_the_bound_the_oldest_commits_are_dropped_and_counted(writer, monkeypatch):
    monkeypatch.setattr(_commits, "BACKLOG_BYTES", 10_000)
    with monkeypatch.context() as broken:
        break_writing(broken)
        for step in range(1, 11):
            writer.append("classes", step=step, **KEY)
            with pytest.raises(OSError, match="No space left"):
                writer.commit()
            writer._retry_at = None
    kept = writer.waiting_rows // 3
    assert (writer.dropped_rows, 0 < kept < 10) == (30 - 3 * kept, True)
    writer.flush()
    assert sorted(set(sealed_steps(writer))) == list(range(11 - kept, 11))
    run = open_trace(writer.path).run
    assert (run["dropped_rows"], run["dropped_commits"]) == (30 - 3 * kept, 10 - kept)


def test_a_full_disk_is_not_tried_again_at_every_step(writer, monkeypatch):
    tries = []

    def fail(_descriptor: int, _pieces: object) -> int:
        tries.append(None)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "writev", fail)
        writer.append("classes", step=1, **KEY)
        with pytest.raises(OSError, match="No space left"):
            writer.commit()
        for step in range(2, 10):
            writer.append("classes", step=step, **KEY)
            writer.commit()
    assert len(tries) == 1
    now = writer_module.monotonic()
    monkeypatch.setattr(writer_module, "monotonic", lambda: now + writer_module.RETRY_SECONDS)
    writer.commit()
    assert writer.waiting_rows == 0
    assert sorted(set(steps_of(writer.path))) == list(range(1, 10))


def test_close_says_what_it_could_not_seal_and_may_be_tried_again(writer):
    (writer.path / "classes").write_text("in the way")
    writer.append("classes", step=1, **KEY)
    with pytest.raises(OSError, match="classes"):
        writer.close("finished")
    run = open_trace(writer.path).run
    assert (run["status"], run["dropped_rows"]) == ("finished", 0), "nothing is lost: it is in the journal"
    assert read_journal(writer.path)[0][0]["classes"][0]["step"] == 1
    (writer.path / "classes").unlink()
    writer.close("finished")
    assert sealed_steps(writer) == [1, 1, 1]


def test_a_write_that_the_disk_takes_half_of_is_undone_and_done_again(writer, monkeypatch):
    writer.append("classes", step=1, **KEY)
    writer.commit()
    writev = os.writev

    def half(descriptor: int, pieces: list[bytes]) -> int:
        return writev(descriptor, [b"".join(pieces)[:100]])

    def full(_descriptor: int, _rest: object) -> int:
        raise OSError(28, "No space left on device")

    writer.append("classes", step=2, **KEY)
    with monkeypatch.context() as broken:
        broken.setattr(os, "writev", half)
        broken.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            writer.commit()
    writer._retry_at = None
    writer.append("classes", step=3, **KEY)
    with monkeypatch.context() as slow:
        slow.setattr(os, "writev", half)  # here the disk takes the rest
        writer.commit()
    assert steps_of(writer.path) == [1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_a_folder_that_is_removed_in_mid_run_is_one_clear_error_and_is_not_made_again(writer):
    writer.append("classes", step=1, **KEY)
    writer.commit()
    for path in sorted(writer.path.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    writer.path.rmdir()
    writer.append("classes", step=2, **KEY)
    with pytest.raises(OSError, match=r"nothing more is written to the trace: .*run does not exist"):
        writer.flush()
    with pytest.raises(OSError, match=r"nothing more is written to the trace: .*run does not exist"):
        writer.close("finished")
    assert not writer.path.exists()


def test_the_background_thread_reports_its_failure_and_goes_on(tmp_path, monkeypatch):
    writer = TraceWriter(tmp_path / "run", flush_seconds=0.02)
    with monkeypatch.context() as broken:
        break_rename(broken)
        writer.append("classes", step=1, **KEY)
        writer.commit()
        wait_until(lambda: writer._failure is not None)
        with pytest.raises(OSError, match="No space left"):
            writer.commit()
    writer.append("classes", step=2, **KEY)
    writer.commit()
    wait_until_sealed(writer)
    assert sealed_steps(writer) == [1, 1, 1, 2, 2, 2]


def test_a_disk_that_hangs_holds_up_no_commit_and_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(_commits, "SEGMENT_BYTES", 1)
    hanging, blocked = threading.Event(), threading.Event()

    def hang(_segment: bytes, *_: object) -> None:
        blocked.set()
        hanging.wait()

    seal = _sealer.Sealer.seal
    monkeypatch.setattr(_sealer.Sealer, "seal", lambda self, segment: (hang(segment), seal(self, segment))[1])
    writer = TraceWriter(tmp_path / "run", flush_seconds=0.01)
    writer.append("classes", step=0, **KEY)
    writer.commit()
    assert blocked.wait(10)
    longest = 0.0
    for step in range(1, 20):
        start = time.perf_counter()
        writer.append("classes", step=step, **KEY)
        writer.commit()
        longest = max(longest, time.perf_counter() - start)
    assert longest < 1, "a commit waits for one write, not for the sealing, which never ends"
    assert "the disk is slow" in writer.pressure
    assert writer.waiting_rows == 0, "the rows are on disk, not in memory"
    hanging.set()
    writer.close("finished")
    assert sorted(set(sealed_steps(writer))) == list(range(20))


def test_a_process_without_file_descriptors_goes_on_and_loses_nothing(tmp_path):
    script = """
import os, resource, sys
from imbdyn.trace import TraceWriter
writer = TraceWriter(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
for step in (1, 2):
    writer.append("classes", step=step, split="train", class_id=[0, 1])
    try:
        writer.flush()
    except OSError as error:
        print(error.errno, writer.waiting_rows)
for descriptor in taken:
    os.close(descriptor)
writer.close("finished")
"""
    assert python(script, str(tmp_path / "run")) == ["24 2", "24 4"]
    assert steps_of(tmp_path / "run") == [1, 1, 2, 2]


def test_a_folder_that_cannot_be_written_is_an_error_at_once(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere; /proc stands for it in test_trace_claim")
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        TraceWriter(tmp_path / "run")
