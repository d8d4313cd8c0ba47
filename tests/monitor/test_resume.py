"""A training that goes on after a checkpoint: one history, the same as that of a training that was never ended."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference_trace_reader import read_table
from torch import nn

from imbdyn import ImbdynWarning, Monitor, open_trace
from imbdyn.monitor import ranks
from imbdyn.trace.schema import TABLES

CLASSES = 3


class Training:
    """A network, its optimizer and a Monitor; every third step is followed by an evaluation."""

    def __init__(self, out: Path, *, resume: bool = False, checkpoint: bytes | None = None) -> None:
        random = torch.Generator().manual_seed(0)
        self.x, self.y = torch.randn(12, 4, generator=random), torch.arange(12) % CLASSES
        torch.manual_seed(1)
        self.model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, CLASSES))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.3, momentum=0.9)
        self.monitor = Monitor(self.model, self.optimizer, CLASSES, out, interval=2, resume=resume)
        self.steps = 0
        if checkpoint is not None:
            state = torch.load(io.BytesIO(checkpoint), weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.monitor.load_state_dict(state["monitor"])
            self.steps = state["steps"]

    def run(self, until: int) -> None:
        while self.steps < until:
            self.monitor.epoch = self.steps // 4
            with self.monitor.batch(self.y):
                F.cross_entropy(self.model(self.x), self.y).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.steps += 1
            if self.steps % 3 == 0:
                self.evaluate()

    def evaluate(self) -> None:
        with self.monitor.evaluate("test"), torch.no_grad(), self.monitor.batch(self.y):
            self.model(self.x)

    def checkpoint(self) -> bytes:
        file = io.BytesIO()
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "monitor": self.monitor.state_dict(),
            "steps": self.steps,
        }
        torch.save(state, file)
        return file.getvalue()

    def die(self) -> None:
        """End as a process does that is killed: nothing is closed."""
        from imbdyn.monitor import lifetime

        writer = self.monitor._recorder._writer
        writer._stopping = True
        writer._wake.set()
        writer._thread.join()
        lifetime.closed(self.monitor, self.model)


def history(run: Path) -> dict[str, list[dict[str, Any]]]:
    """All rows but the times, which no two trainings share."""
    timed = ("step_seconds", "overhead_seconds")
    found = {}
    for name, table in TABLES.items():
        rows = [{k: v for k, v in row.items() if k not in timed} for row in read_table(run, name)]
        found[name] = sorted(rows, key=lambda row, key=table.key: [row[column] for column in key])
    return found


@pytest.mark.parametrize("end", ["killed", "closed"])
@pytest.mark.parametrize(("saved", "ended"), [(4, 9), (6, 6), (6, 8), (5, 5)])
def test_a_resumed_training_leaves_the_history_of_one_that_was_not_ended(
    tmp_path: Path, saved: int, ended: int, end: str
) -> None:
    whole = Training(tmp_path / "whole")
    whole.run(saved)
    whole.monitor.state_dict()  # which ends a window, as it does below
    whole.run(12)
    whole.monitor.close()

    first = Training(tmp_path / "run")
    first.run(saved)
    checkpoint = first.checkpoint()
    first.run(ended)
    if end == "killed":
        first.die()
    else:
        first.monitor.close("interrupted")
    second = Training(tmp_path / "run", resume=True, checkpoint=checkpoint)
    second.run(12)
    second.monitor.close()
    assert history(tmp_path / "run") == history(tmp_path / "whole")
    run, uninterrupted = open_trace(tmp_path / "run").run, open_trace(tmp_path / "whole").run
    assert run["class_counts"] == uninterrupted["class_counts"]
    for name in ("steps", "sampled_steps", "logits_steps"):
        assert run["overhead"][name] == uninterrupted["overhead"][name], "counted over both processes"
    assert run["overhead"]["seconds"] > torch.load(io.BytesIO(checkpoint))["monitor"]["overhead"]["seconds"] > 0


def test_an_evaluation_that_came_after_the_checkpoint_is_not_doubled(tmp_path: Path) -> None:
    first = Training(tmp_path / "run")
    first.run(4)
    checkpoint = first.checkpoint()
    first.evaluate()
    first.die()
    second = Training(tmp_path / "run", resume=True, checkpoint=checkpoint)
    second.evaluate()
    second.run(5)
    second.evaluate()
    second.monitor.close()
    for name, rows in history(tmp_path / "run").items():
        keys = [tuple(row[column] for column in TABLES[name].key) for row in rows]
        assert len(set(keys)) == len(keys), name
    tests = [row["step"] for row in history(tmp_path / "run")["steps"] if row["split"] == "test"]
    assert tests == [3, 4, 5]


def test_resuming_without_a_checkpoint_starts_again_and_supersedes_all(tmp_path: Path) -> None:
    first = Training(tmp_path / "run")
    first.run(5)
    first.die()
    second = Training(tmp_path / "run", resume=True)
    with pytest.warns(ImbdynWarning, match="resume=True goes on after step 0, since load_state_dict"):
        second.run(3)
    second.monitor.close()
    whole = Training(tmp_path / "whole")
    whole.run(3)
    whole.monitor.close()
    assert history(tmp_path / "run") == history(tmp_path / "whole")


def test_resuming_where_there_is_nothing_starts(tmp_path: Path) -> None:
    training = Training(tmp_path / "run", resume=True)
    training.run(3)
    training.monitor.close()
    assert "resumed" not in open_trace(tmp_path / "run").run


def test_a_resumed_trace_to_which_nothing_came_is_as_it_was(tmp_path: Path) -> None:
    first = Training(tmp_path / "run")
    first.run(5)
    checkpoint = first.checkpoint()
    first.die()
    before = history(tmp_path / "run")
    Training(tmp_path / "run", resume=True, checkpoint=checkpoint).monitor.close()
    assert history(tmp_path / "run") == before


def test_a_state_is_taken_between_steps_and_loaded_before_them(tmp_path: Path) -> None:
    training = Training(tmp_path / "run")
    with training.monitor.batch(training.y):
        F.cross_entropy(training.model(training.x), training.y).backward()
    with pytest.raises(ValueError, match="state_dict must come after an optimizer step"):
        training.monitor.state_dict()
    training.optimizer.step()
    state = training.monitor.state_dict()
    with pytest.raises(ValueError, match="load_state_dict must come before the first batch"):
        training.monitor.load_state_dict(state)
    training.monitor.close()
    other = Training(tmp_path / "other")
    with pytest.raises(ValueError, match="the state has version 2, this imbdyn reads up to 1"):
        other.monitor.load_state_dict({**state, "version": 2})
    other.monitor.close()


def test_ranks_come_from_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT", "IMBDYN_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    assert (ranks.rank(), ranks.run_id()) == (0, None)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("MASTER_ADDR", "node0")
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    assert (ranks.rank(), ranks.run_id()) == (3, "node0/29500/job/")
    monkeypatch.setenv("IMBDYN_RUN_ID", "mine")
    assert ranks.run_id() == "mine"
