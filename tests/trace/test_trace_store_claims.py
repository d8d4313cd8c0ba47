"""Whose a place in a store is: taken, replaced, gone on with, or shared by the ranks of one run."""

import os
import threading
from pathlib import Path

import pytest
from store_runs import run_at, staging_is_empty, steps_at, train, wait_until

from imbdyn.trace import TraceWriter, _upload
from imbdyn.trace._remote import Remote
from imbdyn.trace._resend import send_staged
from imbdyn.trace._upload import UnsentError


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
