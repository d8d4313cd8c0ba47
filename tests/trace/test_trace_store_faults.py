"""A trace that goes to an S3 server which fails: training goes on, and nothing is lost that can be sent later.

The server is real (moto, over HTTP on loopback); the faults are made by a proxy in front of it.
"""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from time import monotonic, sleep

import pyarrow.dataset as ds
import pytest

from imbdyn.trace import TraceWriter, _upload
from imbdyn.trace._remote import Remote
from imbdyn.trace._resend import send_staged
from imbdyn.trace._staging import parts_in, staged
from imbdyn.trace._store import filesystem_of
from imbdyn.trace._upload import UnsentError

#: A commit waits for no network: the slowest fault below takes a second and more, a commit a fraction of a millisecond.
LONGEST_COMMIT = 0.8


def train(writer: TraceWriter, steps: range) -> float:
    """Commit a row of two tables for each step, and return how long the slowest commit took."""
    slowest = 0.0
    for step in steps:
        start = monotonic()
        writer.append("classes", step=step, split="train", class_id=[0, 1])
        writer.append("steps", step=step, split="train")
        writer.commit()
        slowest = max(slowest, monotonic() - start)
    return slowest


def steps_at(uri: str, table: str = "steps") -> list[int]:
    """Return the steps of a table as any reader sees them in the store, sorted."""
    filesystem, path = filesystem_of(uri)
    rows = ds.dataset(f"{path}/{table}", filesystem=filesystem, format="parquet").to_table(columns=["step"])
    return sorted(rows["step"].to_pylist())


def run_at(uri: str) -> dict[str, object]:
    return dict(json.loads(Remote(uri).read_record("run.json") or b"{}"))


def wait_until(holds, seconds: float = 60.0) -> None:
    end = monotonic() + seconds
    while not holds():
        assert monotonic() < end, "it did not happen in time"
        sleep(0.05)


def staging_is_empty(tmp_path: Path) -> bool:
    return not list((tmp_path / "staging").iterdir())


def test_parts_are_in_the_store_while_the_run_goes_on_and_leave_the_staging_folder(uri, tmp_path):
    writer = TraceWriter(uri)
    assert writer.path.parent == tmp_path / "staging"
    for first in (1, 11, 21):
        train(writer, range(first, first + 10))
        writer.flush()
    wait_until(lambda: sum(name.startswith("steps/") for name in Remote(uri).files()) == 3)
    assert steps_at(uri) == list(range(1, 31))
    wait_until(lambda: len(parts_in(writer.path)) == 2)  # the last of each table, which tells where it ends
    assert run_at(uri)["status"] == "running"
    assert run_at(uri)["staging"]["path"] == str(writer.path)
    writer.close("finished")
    assert run_at(uri)["status"] == "finished"
    assert (
        sorted(name.partition("/")[0] for name in Remote(uri).files()) == ["classes"] * 3 + ["run.json"] + ["steps"] * 3
    )
    assert staging_is_empty(tmp_path)


@pytest.mark.parametrize("fault", ["refuse", "503", "slow", "cut"])
def test_a_fault_in_mid_run_does_not_hold_up_training_and_loses_nothing(s3, uri, tmp_path, fault):
    writer = TraceWriter(uri)
    train(writer, range(1, 6))
    writer.flush()
    wait_until(lambda: len(Remote(uri).files()) == 3)
    s3.begin(fault)
    slowest = 0.0
    for first in (6, 11, 16):
        slowest = max(slowest, train(writer, range(first, first + 5)))
        start = monotonic()
        writer.flush()  # seals on the local disk
        slowest = max(slowest, monotonic() - start)
    if fault != "refuse":
        wait_until(lambda: s3.faults > 0)
    else:
        wait_until(lambda: writer._uploader._failure is not None)
    slowest = max(slowest, train(writer, range(21, 31)))
    assert slowest < LONGEST_COMMIT
    s3.recover()
    writer.close("finished")
    assert steps_at(uri) == list(range(1, 31))
    assert steps_at(uri, "classes") == sorted([*range(1, 31)] * 2)
    assert run_at(uri)["status"] == "finished"
    assert staging_is_empty(tmp_path)


def test_credentials_that_expire_are_read_again(s3, uri, tmp_path, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    credentials = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    credentials.write_text("[default]\naws_access_key_id = old\naws_secret_access_key = old\n")
    writer = TraceWriter(uri)
    train(writer, range(1, 6))
    writer.flush()
    wait_until(lambda: len(Remote(uri).files()) == 3)
    s3.begin("expired", key="old")
    train(writer, range(6, 11))
    writer.flush()
    wait_until(lambda: s3.faults > 1)
    credentials.write_text("[default]\naws_access_key_id = new\naws_secret_access_key = new\n")
    wait_until(lambda: steps_at(uri) == list(range(1, 11)))  # by the writer's own doing, while it is open
    writer.close("finished")


def test_close_says_what_stays_and_it_can_be_sent_later(s3, uri, tmp_path, monkeypatch):
    monkeypatch.setattr(_upload, "CLOSE_SECONDS", 0.5)
    writer = TraceWriter(uri)
    s3.begin("503")
    train(writer, range(1, 6))
    with pytest.raises(
        UnsentError, match=rf"3 files of the trace were not sent to {uri.partition('?')[0]}.*503"
    ) as caught:
        writer.close("finished")
    assert f"stay in {writer.path}, and `imbdyn check 's3://" in str(caught.value)
    s3.recover()
    assert staged(uri) == [writer.path]
    assert run_at(uri)["status"] == "running"
    sent = send_staged(writer.path)
    assert [name.partition("/")[0] for name in sent] == ["classes", "steps", "run.json"]
    assert steps_at(uri) == [1, 2, 3, 4, 5]
    assert run_at(uri)["status"] == "finished"
    assert staging_is_empty(tmp_path)


def test_a_silent_store_holds_up_the_end_only_for_a_bounded_time(s3, uri, monkeypatch):
    monkeypatch.setattr(_upload, "CLOSE_SECONDS", 0.5)
    writer = TraceWriter(uri)
    train(writer, range(1, 3))
    s3.begin("silent")
    writer.flush()
    wait_until(lambda: s3.faults > 0)
    start = monotonic()
    with pytest.raises(UnsentError, match=r"the store was not done after 0\.5 s"):
        writer.close("finished")
    assert monotonic() - start < 10
    s3.recover()
    send_staged(writer.path)
    assert steps_at(uri) == [1, 2]


def test_a_store_that_takes_nothing_is_reported_once(s3, uri, monkeypatch):
    monkeypatch.setattr(_upload, "REPORT_SECONDS", 0.1)
    writer = TraceWriter(uri, fsync_seconds=0.05)
    s3.begin("503")
    train(writer, range(1, 3))
    writer.flush()
    errors = []
    for step in range(3, 153):
        try:
            train(writer, range(step, step + 1))
        except UnsentError as error:
            errors.append(str(error))
        sleep(0.002)
    [error] = errors
    assert "has taken nothing for 0 s: " in error
    assert f"; what is not sent waits in {writer.path}, and is sent when it can be" in error
    s3.recover()
    writer.close("finished")
    assert steps_at(uri) == list(range(1, 153))


def test_a_process_killed_in_mid_upload_loses_nothing(s3, uri, tmp_path, request):
    script = f"""
        import time
        from imbdyn.trace import TraceWriter
        writer = TraceWriter({uri!r})
        print("open", flush=True)
        input()
        for step in range(1, 31):
            writer.append("classes", step=step, split="train", class_id=[0, 1])
            writer.append("steps", step=step, split="train")
            writer.commit()
            if step % 10 == 0 and step < 30:
                writer.flush()
        print("committed", flush=True)
        time.sleep(3600)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    request.addfinalizer(process.kill)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    s3.begin("slow")
    s3.in_upload.clear()
    process.stdin.write(b"\n")
    process.stdin.flush()
    assert s3.in_upload.wait(60)
    [folder] = staged(uri)
    with pytest.raises(BlockingIOError, match="in use by a process that still writes or sends"):
        send_staged(folder)
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    s3.recover()
    assert len(parts_in(folder)) == 4  # of steps 1 to 20; the first was on its way
    sent = send_staged(folder)
    assert len(sent) >= 5
    assert steps_at(uri) == list(range(1, 31))  # the last ten were in the journal only
    assert steps_at(uri, "classes") == sorted([*range(1, 31)] * 2)
    assert staging_is_empty(tmp_path)


def test_a_part_that_was_sent_before_the_process_died_is_not_sealed_again(uri, monkeypatch):
    writer = TraceWriter(uri)
    train(writer, range(1, 6))
    with monkeypatch.context() as broken:  # the process dies between the part and the removal of its segment
        broken.setattr(writer._sealer, "remove", lambda _segment: (_ for _ in ()).throw(OSError("dead")))
        with pytest.raises(OSError, match="dead"):
            writer.flush()
    wait_until(lambda: len(Remote(uri).files()) == 3)
    folder = writer.path
    assert sorted(path.suffix for path in (folder / "_journal").iterdir()) == [".journal"]
    writer._uploader._hold.close()
    assert send_staged(folder) == []
    assert steps_at(uri) == [1, 2, 3, 4, 5]


def test_what_the_store_did_not_keep_is_sent_again(uri, monkeypatch):
    whole = Remote._send
    cut = []

    def lose_the_end(self: Remote, source, path: str) -> None:
        if path.endswith(".parquet") and not cut:
            cut.append(path)
            with self._filesystem.open_output_stream(path) as out:
                out.write(source.read()[:-1])
        else:
            whole(self, source, path)

    monkeypatch.setattr(Remote, "_send", lose_the_end)
    writer = TraceWriter(uri)
    train(writer, range(1, 4))
    writer.close("finished")
    assert cut
    assert steps_at(uri) == steps_at(uri, "classes")[::2] == [1, 2, 3]


def test_a_place_that_is_taken_is_never_overwritten(uri):
    first = TraceWriter(uri)
    with pytest.raises(FileExistsError, match=r"exists and is never overwritten: .* force=True"):
        TraceWriter(uri)
    train(first, range(1, 3))
    first.close("finished")
    assert steps_at(uri) == [1, 2]


def test_of_two_runs_that_come_at_once_at_most_one_gets_the_place(uri, tmp_path):
    opened, refused = [], []
    together = threading.Barrier(4)

    def claim() -> None:
        together.wait()
        try:
            opened.append(TraceWriter(uri))
        except FileExistsError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) <= 1
    assert len(opened) + len(refused) == 4
    assert all("another run is about to claim" in error or "never overwritten" in error for error in refused)
    for writer in opened:
        writer.close("finished")
    assert not [name for name in Remote(uri).files() if name.startswith("_claim")]
    TraceWriter(uri, force=True).close("finished")
    assert staging_is_empty(tmp_path)


def test_a_run_whose_place_another_has_taken_sends_nothing_more(uri):
    first = TraceWriter(uri)
    train(first, range(1, 3))
    first.flush()
    wait_until(lambda: len(Remote(uri).files()) == 3)
    second = TraceWriter(uri, force=True)
    train(first, range(3, 5))
    with pytest.raises(UnsentError, match=f"another run has claimed .*; they stay in {first.path}$"):
        first.close("finished")
    train(second, range(7, 9))
    second.close("finished")
    assert steps_at(uri) == [7, 8]
    with pytest.raises(OSError, match="which another run has claimed since"):
        send_staged(first.path)


def test_force_replaces_a_trace_and_nothing_else(uri):
    writer = TraceWriter(uri)
    train(writer, range(1, 3))
    writer.close("finished")
    remote = Remote(uri)
    with (Path(os.environ["IMBDYN_STAGING"]) / "notes").open("w+b") as notes:
        remote.write("steps/notes.txt", notes)
        remote.write("report.html", notes)
    before = remote.files()
    with pytest.raises(FileExistsError, match=r"steps/notes\.txt is no part of a trace, so force removed nothing"):
        TraceWriter(uri, force=True)
    assert remote.files() == before
    remote.remove("steps/notes.txt")
    TraceWriter(uri, force=True).close("finished")
    assert sorted(remote.files()) == ["report.html", "run.json"]


def test_force_and_resume_take_nothing_but_a_trace(uri):
    with (Path(os.environ["IMBDYN_STAGING"]).parent / "notes").open("w+b") as notes:
        Remote(uri).write("thesis.tex", notes)
    for options in ({"force": True}, {"resume": True}):
        with pytest.raises(
            FileExistsError, match=r"holds thesis\.tex but no run\.json; (force|resume) \w+ nothing but"
        ):
            TraceWriter(uri, **options)
    assert list(Remote(uri).files()) == ["thesis.tex"]


@pytest.mark.parametrize("fault", ["refuse", "503"])
def test_a_store_that_does_not_answer_at_the_start_is_an_error(s3, uri, tmp_path, fault):
    s3.begin(fault)
    with pytest.raises(OSError, match="AWS Error"):
        TraceWriter(uri)
    assert not (tmp_path / "staging").exists() or staging_is_empty(tmp_path)


def test_a_bucket_that_does_not_exist_is_an_error_without_credentials_in_it(s3):
    with pytest.raises(OSError, match="The specified bucket does not exist") as caught:
        TraceWriter(s3.uri("nosuch/run", key="SECRET"))
    assert "SECRET" not in str(caught.value)


def test_credentials_in_the_uri_are_in_no_file(s3, request, tmp_path, monkeypatch):
    monkeypatch.setattr(_upload, "CLOSE_SECONDS", 0.3)
    uri = s3.uri(f"bucket/{request.node.name}", key="SECRET")
    writer = TraceWriter(uri)
    train(writer, range(1, 3))
    writer.flush()
    wait_until(lambda: len(Remote(uri).files()) == 3)
    s3.begin("503")
    train(writer, range(3, 5))
    with pytest.raises(UnsentError) as caught:
        writer.close("finished")
    s3.recover()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert not [path for path in files if b"SECRET" in path.read_bytes() or "SECRET" in str(path)]
    assert "SECRET" not in str(caught.value)
    send_staged(writer.path)
    assert b"SECRET" not in (Remote(uri).read_record("run.json") or b"")


def test_a_run_is_resumed_on_another_machine(uri, tmp_path, monkeypatch):
    first = TraceWriter(uri)
    for step in range(1, 9):
        train(first, range(step, step + 1))
        first.flush()
    first.close("interrupted")
    monkeypatch.setenv("IMBDYN_STAGING", str(tmp_path / "other"))
    second = TraceWriter(uri, resume=True)
    second.resume_after(5)
    train(second, range(6, 11))
    second.close("finished")
    assert steps_at(uri) == [1, 2, 3, 4, 5, 6, 6, 7, 7, 8, 8, 9, 10]
    [resumed] = run_at(uri)["resumed"]
    assert (resumed["step"], resumed["parts"]) == (5, {"classes/0000": 8, "steps/0000": 8})
    assert sorted(name[18:26] for name in Remote(uri).files() if name.startswith("classes")) == [
        f"{sequence:08d}" for sequence in range(9)
    ]
    assert list((tmp_path / "other").iterdir()) == []


def test_a_run_is_resumed_with_what_it_could_not_send_before(s3, uri, tmp_path, monkeypatch):
    with monkeypatch.context() as hurried:
        hurried.setattr(_upload, "CLOSE_SECONDS", 0.3)
        first = TraceWriter(uri)
        train(first, range(1, 3))
        first.flush()
        wait_until(lambda: len(Remote(uri).files()) == 3)
        s3.begin("503")
        train(first, range(3, 5))
        with pytest.raises(UnsentError):
            first.close("failed")
    s3.recover()
    second = TraceWriter(uri, resume=True)
    second.resume_after(4)
    train(second, range(5, 7))
    second.close("finished")
    assert steps_at(uri) == [1, 2, 3, 4, 5, 6]
    assert staging_is_empty(tmp_path)


def test_to_resume_where_nothing_is_begins_a_run(uri):
    writer = TraceWriter(uri, resume=True)
    assert not writer.resumes
    train(writer, range(1, 3))
    writer.close("finished")
    assert steps_at(uri) == [1, 2]


def test_ranks_send_their_parts_to_one_place(uri, tmp_path):
    writers = [TraceWriter(uri, rank=rank, run_id="job/7") for rank in range(3)]
    for writer in writers:
        train(writer, range(1 + 10 * writer._rank, 4 + 10 * writer._rank))
    for writer in writers:
        writer.close("finished")
    assert steps_at(uri) == [1, 2, 3, 11, 12, 13, 21, 22, 23]
    files = Remote(uri).files()
    assert {name for name in files if not name.endswith("parquet")} == {
        "_journal/0001.json",
        "_journal/0002.json",
        "run.json",
    }
    assert staging_is_empty(tmp_path)


def test_a_rank_waits_for_its_own_run(uri, monkeypatch):
    monkeypatch.setattr(_upload, "await_claim", lambda remote, run_id: await_briefly(remote, run_id))
    from imbdyn.trace._remote_claim import await_claim

    def await_briefly(remote: Remote, run_id: str) -> bytes:
        return await_claim(remote, run_id, seconds=0.0)

    with pytest.raises(TimeoutError, match=r"has not claimed .* the place is claimed by nobody"):
        TraceWriter(uri, rank=1, run_id="mine")
    other = TraceWriter(uri, run_id="other")
    with pytest.raises(TimeoutError, match="belongs to run 'other'"):
        TraceWriter(uri, rank=1, run_id="mine")
    other.close("finished")
