"""Several processes write one run; two runs do not write into one folder."""

import json
import subprocess
import sys
import time

import pytest
from reference_trace_reader import read_table

from imbdyn.trace import TraceWriter, _claim, open_trace

WRITE = """
import sys
from imbdyn.trace import TraceWriter
out, rank = sys.argv[1], int(sys.argv[2])
writer = TraceWriter(out, rank=rank, run_id="a run", flush_seconds=0.02)
for step in range(1, 101):
    writer.append("steps", step=step, split=f"rank {rank}", loss=float(rank))
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


def test_four_processes_write_one_run_whoever_comes_first(tmp_path):
    processes = [start(WRITE, tmp_path / "run", rank) for rank in (3, 2, 1)]
    time.sleep(0.5)  # the others wait for rank 0
    processes.append(start(WRITE, tmp_path / "run", 0))
    for process in processes:
        assert process.communicate(timeout=120) == ("", "")
        assert process.returncode == 0
    rows = read_table(tmp_path / "run", "steps")
    assert sorted((row["split"], row["step"]) for row in rows) == [
        (f"rank {rank}", step) for rank in range(4) for step in range(1, 101)
    ]
    assert all(row["loss"] == float(row["split"][-1]) for row in rows)
    assert len(open_trace(tmp_path / "run").steps) == 400
    assert open_trace(tmp_path / "run").run["status"] == "finished"
    own = json.loads((tmp_path / "run" / "_journal" / "0002.json").read_text())
    assert (own["rank"], own["claim"], own["status"], own["dropped_rows"]) == (2, "a run", "finished", 0)


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
