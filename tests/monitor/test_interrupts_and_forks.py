"""Ctrl-C in the middle of recording a step, and processes that are forked: nothing is lost, and nothing comes twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from forked_python import ForkedPython
from torch import nn

from imbdyn import Monitor, open_trace
from imbdyn.monitor import tables
from imbdyn.monitor.cadence import Cadence
from imbdyn.trace import TraceWriter

CLASSES = 3


@pytest.mark.parametrize("table", ["classifier", "parameters", "class_gradients", "steps", "classes", "commit"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupt_while_a_step_is_recorded_takes_nothing_of_the_steps_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, when: str
) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(6, 4), torch.arange(6) % CLASSES
    append, commit = TraceWriter.append, TraceWriter.commit
    armed = False

    def interrupted_append(self: TraceWriter, name: str, **columns: object) -> None:
        if not armed or name != table or when == "after":
            append(self, name, **columns)
        if armed and name == table:
            monkeypatch.undo()
            raise KeyboardInterrupt

    def interrupted_commit(self: TraceWriter) -> None:
        if not armed or table != "commit" or when == "after":
            commit(self)
        if armed and table == "commit":
            monkeypatch.undo()
            raise KeyboardInterrupt

    monkeypatch.setattr(TraceWriter, "append", interrupted_append)
    monkeypatch.setattr(TraceWriter, "commit", interrupted_commit)

    def train() -> None:
        nonlocal armed
        with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=3) as monitor:
            for step in range(1, 10):
                armed = step == 6
                with monitor.batch(y):
                    F.cross_entropy(model(x), y).backward()
                optimizer.step()
                optimizer.zero_grad()

    with pytest.raises(KeyboardInterrupt):
        train()
    trace = open_trace(tmp_path / "run")
    assert trace.run["status"] == "interrupted"
    assert trace.steps["count"].sum() == 6 * 6, "the logits of every step were counted, once"
    assert trace.classes["count"].sum() == 6 * 6
    assert trace.steps["step"].tolist() == [1, 3, 6]
    whole = {1, 3} if (table, when) != ("commit", "after") else {1, 3, 6}
    assert set(trace.class_gradients["step"]) == set(trace.parameters["step"]) == whole
    assert Counter(trace.classifier["step"]) == dict.fromkeys(whole, CLASSES)


def test_an_interrupt_between_a_commit_and_the_count_of_its_step_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(6, 4), torch.arange(6) % CLASSES
    step_done = Cadence.step_done

    def interrupted(self: Cadence, **read: bool) -> None:
        if self.steps == 3:
            raise KeyboardInterrupt
        step_done(self, **read)

    monkeypatch.setattr(Cadence, "step_done", interrupted)

    def train() -> None:
        with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
            while True:
                with monitor.batch(y):
                    F.cross_entropy(model(x), y).backward()
                optimizer.step()
                optimizer.zero_grad()

    with pytest.raises(KeyboardInterrupt):
        train()
    assert open_trace(tmp_path / "run").steps["step"].tolist() == [1, 2, 3, 4]


def test_names_that_repeat_are_encoded_once() -> None:
    assert tables._repeated(("a", "b"), 3) is tables._repeated(("a", "b"), 3)


FORKED = """
import os, sys, warnings, torch, torch.nn as nn, torch.nn.functional as F, imbdyn
model = nn.Linear(4, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
monitor = imbdyn.Monitor(model, optimizer, 3, sys.argv[1], interval=1)
def step():
    y = torch.tensor([0, 1, 2])
    with monitor.batch(y):
        F.cross_entropy(model(torch.randn(3, 4)), y).backward()
    optimizer.step()
    optimizer.zero_grad()
torch.set_num_threads(1)
step()
child = os.fork()
if child == 0:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        step()
        step()
    print(*[warning.message for warning in caught], sep="\\n", flush=True)
    sys.exit(0)  # runs what is registered for the end of the interpreter
os.waitpid(child, 0)
step()
"""


def test_a_forked_process_that_trains_on_is_told_and_leaves_the_trace_to_its_parent(
    python: ForkedPython, tmp_path: Path
) -> None:
    done = python(FORKED, tmp_path / "run")
    assert (done.returncode, done.stderr) == (0, b"")
    warned = done.stdout.splitlines()
    assert warned
    assert all(b"this process was forked from the one that writes" in line for line in warned)
    trace = open_trace(tmp_path / "run")
    assert trace.run["status"] == "finished"
    assert trace.steps["step"].tolist() == [1, 2]
