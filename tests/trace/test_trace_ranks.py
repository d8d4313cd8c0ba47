"""Several processes write one run; two runs do not write into one folder."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from click.testing import CliRunner
from reference_trace_reader import read_table

from imbdyn.cli import main
from imbdyn.trace import TraceError, TraceWriter, _claim, open_trace
from imbdyn.trace._lookup import look_up_table
from imbdyn.trace._part import write_part
from imbdyn.trace.check import check

WRITE = """
import sys
from imbdyn.trace import TraceWriter
out, rank = sys.argv[1], int(sys.argv[2])
writer = TraceWriter(out, rank=rank, run_id="a run", flush_seconds=0.02)
for step in range(1, 101):
    writer.append("steps", step=step, since_step=step - 1, split="train", loss=float(rank))
    writer.commit()
writer.close("finished")
"""

CLAIM = """
import sys, time
from imbdyn.trace import TraceWriter
while time.time() < float(sys.argv[2]):
    pass
try:
    TraceWriter(sys.argv[1]).close("finished")
    print("claimed")
except FileExistsError as error:
    print(error)
"""


def start(script, *arguments):
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_table_whose_folder_another_rank_has_just_made_is_written(tmp_path, monkeypatch):
    folder, made = tmp_path / "steps", Path.mkdir

    def after_another(self, *arguments, **options):
        if self == folder and not folder.exists():
            made(folder)
        made(self, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", after_another)
    rows = look_up_table("steps").schema().empty_table()
    assert write_part(folder, look_up_table("steps"), [rows], rank=1, sequence=0, seals=0).exists()


def test_four_processes_write_one_run_whoever_comes_first(tmp_path):
    processes = [start(WRITE, tmp_path / "run", rank) for rank in (3, 2, 1)]
    time.sleep(0.5)  # the others wait for rank 0
    processes.append(start(WRITE, tmp_path / "run", 0))
    for process in processes:
        assert process.communicate(timeout=120) == ("", "")
        assert process.returncode == 0
    rows = read_table(tmp_path / "run", "steps")
    written = [(float(rank), step) for rank in range(4) for step in range(1, 101)]
    assert sorted((row["loss"], row["step"]) for row in rows) == written
    trace = open_trace(tmp_path / "run")
    assert trace.run["status"] == "finished"
    assert list(trace.steps[["rank", "step"]].itertuples(index=False, name=None)) == written
    assert (trace.steps["loss"] == trace.steps["rank"]).all()
    assert check(tmp_path / "run").problems == []
    own = json.loads((tmp_path / "run" / "_journal" / "0002.json").read_text())
    assert (own["rank"], own["claim"], own["status"], own["dropped_rows"]) == (2, "a run", "finished", 0)


def write_ranks(path, ranks):
    writers = [TraceWriter(path, rank=rank, run_id="a run") for rank in range(ranks)]
    writers[0].update_run(class_names=["a"], class_counts=[2], num_classes=1, config=None, overhead=None)
    for rank, writer in enumerate(writers):
        for step in (1, 2):
            writer.append("classes", step=step, split="train", class_id=0, loss=step + rank / 10)
            if step == 1:
                writer.flush()  # a row in a part, another in the journal
            writer.commit()
    return writers


def test_ranks_are_told_apart_by_a_column_while_they_write_and_after(tmp_path):
    writers = write_ranks(tmp_path / "run", 2)
    rows = [(0, 1, 1.0), (0, 2, 2.0), (1, 1, 1.1), (1, 2, 2.1)]
    for _ in range(2):
        trace = open_trace(tmp_path / "run")
        assert trace.has_ranks
        assert trace.key("classes") == ("rank", "step", "split", "class_id")
        assert trace.schema("classes").names[:2] == ["rank", "step"]
        for read in (trace.table("classes"), trace.dataset("classes").to_table().sort_by("rank")):
            assert [tuple(row) for row in read.to_pandas()[["rank", "step", "loss"]].to_numpy()] == rows
        of_one = trace.table("classes", ["rank", "loss"], ds.field("rank") == 1)
        assert of_one.to_pydict() == {"rank": [1, 1], "loss": [1.1, 2.1]}
        assert check(tmp_path / "run").problems == []
        for writer in writers:
            writer.close("finished")


def test_runs_of_one_rank_and_of_several_are_one_set(tmp_path):
    for name, ranks in (("alone", 1), ("both", 2)):
        for writer in write_ranks(tmp_path / name, ranks):
            writer.close("finished")
    traces = open_trace([tmp_path / "alone", tmp_path / "both"])
    keys = [("alone", 0), ("alone", 0), ("both", 0), ("both", 0), ("both", 1), ("both", 1)]
    assert list(traces.classes[["run", "rank"]].itertuples(index=False, name=None)) == keys
    assert traces.dataset("classes").count_rows() == 6
    assert "rank" not in open_trace(tmp_path / "alone").classes


def test_one_rank_that_wrote_a_key_twice_is_found(tmp_path):
    writers = write_ranks(tmp_path / "run", 2)
    writers[1].append("classes", step=2, split="train", class_id=0, loss=0.0)
    for writer in writers:
        writer.close("finished")
    [problem] = check(tmp_path / "run").problems
    assert "1 keys are there twice, the first with step 2, split 'train', class_id 0" in problem.message
    assert problem.file.startswith("classes/part-0001-")


def test_findings_say_that_ranks_are_not_added_up(tmp_path):
    for writer in write_ranks(tmp_path / "run", 2):
        writer.close("finished")
    with pytest.raises(TraceError, match="was written by several ranks, whose rows are not added up"):
        open_trace(tmp_path / "run").findings()
    shown = CliRunner().invoke(main, ["show", str(tmp_path / "run")])
    assert (shown.exit_code, shown.output.count("\n")) == (2, 1)
    assert "several ranks" in shown.output


def test_of_runs_that_claim_a_folder_at_once_one_gets_it(tmp_path):
    at = time.time() + 2.5
    claims = [start(CLAIM, tmp_path / "run", at) for _ in range(4)]
    said = sorted(claim.communicate(timeout=60)[0].strip() for claim in claims)
    assert said[-1] == "claimed"
    assert all("another run has just claimed this folder" in line or "never overwritten" in line for line in said[:-1])
    assert open_trace(tmp_path / "run").run["status"] == "finished"


def test_a_run_between_the_look_and_the_claim_is_not_overwritten(tmp_path, monkeypatch):
    create = _claim._create
    TraceWriter(tmp_path / "other").close("finished")

    def be_late(temporary, path):
        path.write_bytes((tmp_path / "other" / "run.json").read_bytes())
        create(temporary, path)

    monkeypatch.setattr(_claim, "_create", be_late)
    with pytest.raises(FileExistsError, match="another run has just claimed this folder: choose another out"):
        TraceWriter(tmp_path / "run")
    assert open_trace(tmp_path / "run").run["status"] == "finished"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]


def test_a_filesystem_without_hard_links_claims_too(tmp_path, monkeypatch):
    def no_links(_source, _target):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(_claim.os, "link", no_links)
    TraceWriter(tmp_path / "run").close("finished")
    assert open_trace(tmp_path / "run").run["status"] == "finished"


def test_a_rank_of_another_run_is_told_whose_the_folder_is(tmp_path, monkeypatch):
    monkeypatch.setattr(_claim.join, "__defaults__", (0.1,))
    with pytest.raises(TimeoutError, match=r"rank 0 of run 'b' has not claimed .*: the folder is claimed by nobody"):
        TraceWriter(tmp_path / "run", rank=1, run_id="b")
    TraceWriter(tmp_path / "run", run_id="a")
    with pytest.raises(TimeoutError, match="the folder belongs to run 'a'"):
        TraceWriter(tmp_path / "run", rank=1, run_id="b")
    with pytest.raises(ValueError, match="rank 1 needs the run_id of rank 0"):
        TraceWriter(tmp_path / "run", rank=1)


def test_a_run_whose_folder_another_one_takes_over_stops_writing_and_says_so(tmp_path):
    first = TraceWriter(tmp_path / "run")
    first.append("steps", step=1, split="train", loss=1.0)
    first.commit()
    second = TraceWriter(tmp_path / "run", force=True)
    first.append("steps", step=2, split="train", loss=1.0)
    first.commit()
    with pytest.raises(OSError, match="nothing more is written to the trace: another run has claimed"):
        first.flush()
    with pytest.raises(OSError, match="another run has claimed"):
        first.close("finished")
    second.append("steps", step=1, split="train", loss=2.0)
    second.close("finished")
    assert [row["loss"] for row in read_table(tmp_path / "run", "steps")] == [2.0]
