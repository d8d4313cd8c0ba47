"""A trace that is gone on with: what later steps left is superseded, what was in the journal is sealed."""

import json

import pytest
from reference_trace_reader import read_table

from imbdyn.trace import TraceError, TraceWriter, open_trace


def write(writer, steps, loss):
    for step in steps:
        writer.append("steps", step=step, split="train", loss=loss)
        writer.commit()


@pytest.fixture
def killed(tmp_path):
    """A run of ten steps, six of them sealed, whose process is gone."""
    writer = TraceWriter(tmp_path / "run")
    write(writer, range(1, 7), 1.0)
    writer.flush()
    write(writer, range(7, 11), 1.0)
    writer._stopping = True
    writer._wake.set()
    writer._thread.join()
    return writer.path


def test_what_was_left_in_the_journal_is_sealed_and_run_json_says_from_where_it_goes_on(killed):
    with (killed / "_journal" / "0000-00000001.journal").open("ab") as file:
        file.write(b"a record that was cut short")
    writer = TraceWriter(killed, resume=True)
    assert writer.resumes
    assert len(open_trace(killed).table("steps")) == 10
    writer.resume_after(8)
    assert not writer.resumes
    write(writer, (9, 10, 11), 2.0)
    writer.close("finished")
    (resumed,) = open_trace(killed).run["resumed"]
    assert (resumed["step"], resumed["parts"]) == (8, {"steps/0000": 2})
    assert resumed["journal_bytes_lost"] == {"0000-00000001.journal": len(b"a record that was cut short")}
    assert [(row["step"], row["loss"]) for row in read_table(killed, "steps")] == [
        *((step, 1.0) for step in range(1, 9)),
        *((step, 2.0) for step in (9, 10, 11)),
    ]


def test_a_run_is_resumed_again_and_again(killed):
    for k in (8, 5):
        writer = TraceWriter(killed, resume=True)
        writer.resume_after(k)
        write(writer, (k + 1,), float(k))
        writer.close("interrupted")
    run = open_trace(killed).run
    assert [(entry["step"], entry["parts"]) for entry in run["resumed"]] == [
        (8, {"steps/0000": 2}),
        (5, {"steps/0000": 3}),
    ]
    assert run["status"] == "interrupted"
    assert [(row["step"], row["loss"]) for row in read_table(killed, "steps")] == [
        *((step, 1.0) for step in range(1, 6)),
        (6, 5.0),
    ]


def test_records_go_on_where_they_ended(killed):
    writer = TraceWriter(killed, resume=True)
    writer.resume_after(10)
    write(writer, (11,), 2.0)
    writer._wake.set()
    assert writer._commits.current.last_record == 11


def test_the_start_and_what_was_dropped_are_kept(killed):
    run = json.loads((killed / "run.json").read_text())
    TraceWriter(killed, resume=True).close("finished")
    again = open_trace(killed).run
    assert again["started"] == run["started"]
    assert again["claim"] != run["claim"]
    assert "resumed" not in again, "nothing was written"


def test_rows_before_it_is_said_from_where_are_refused(killed):
    writer = TraceWriter(killed, resume=True)
    with pytest.raises(ValueError, match=r"is resumed: resume_after\(step\) must come before the first rows"):
        writer.append("steps", step=11, split="train")
    writer.close("failed")
    assert len(open_trace(killed).steps) == 10


def test_a_folder_without_a_trace_is_started_or_refused(tmp_path):
    writer = TraceWriter(tmp_path / "new", resume=True)
    assert not writer.resumes
    writer.resume_after(0)
    write(writer, (1,), 1.0)
    writer.close("finished")
    assert len(open_trace(tmp_path / "new").steps) == 1
    with pytest.raises(ValueError, match="give one of them"):
        TraceWriter(tmp_path / "new", resume=True, force=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(FileExistsError, match="never overwritten"):
        TraceWriter(tmp_path / "other", resume=True)
    (tmp_path / "other" / "run.json").write_text("{}")
    with pytest.raises(TraceError, match="no schema_version"):
        TraceWriter(tmp_path / "other", resume=True)


def test_a_seal_that_a_kill_cut_short_is_taken_up(tmp_path, monkeypatch):
    """One table has its part, the other has not: both end with every row once."""
    from imbdyn.trace import _sealer

    writer = TraceWriter(tmp_path / "run")
    writer.append("steps", step=1, split="train")
    writer.append("classes", step=1, split="train", class_id=[0, 1])
    write_part = _sealer.write_part

    def die_at_classes(folder, *arguments, **options):
        if folder.name == "classes":
            raise KeyboardInterrupt
        return write_part(folder, *arguments, **options)

    with monkeypatch.context() as dying:
        dying.setattr(_sealer, "write_part", die_at_classes)
        with pytest.raises(KeyboardInterrupt):
            writer.flush()
    assert len(read_table(writer.path, "steps")) == 1
    assert len(read_table(writer.path, "classes")) == 2
    TraceWriter(writer.path, resume=True).close("finished")
    assert not list((writer.path / "_journal").iterdir())
    assert len(open_trace(writer.path).steps) == 1
    assert len(open_trace(writer.path).classes) == 2
