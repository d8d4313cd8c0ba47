"""Ctrl-C in the middle of recording a step: what earlier steps have left is in the trace, and nothing comes twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from imbdyn import Monitor, open_trace
from imbdyn.monitor import tables
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
                # classifier rows of step 3 come with step 4, a window closes in step 6
                armed = step == (4 if table == "classifier" else 6)
                with monitor.batch(y):
                    F.cross_entropy(model(x), y).backward()
                optimizer.step()
                optimizer.zero_grad()

    with pytest.raises(KeyboardInterrupt):
        train()
    trace = open_trace(tmp_path / "run")
    last = 4 if table == "classifier" else 6
    assert trace.run["status"] == "interrupted"
    assert trace.steps["count"].sum() == 6 * last, "the logits of every step were counted, once"
    assert trace.classes["count"].sum() == 6 * last
    assert trace.steps["step"].tolist() == [1, 3, last]
    whole = {1, 3} if (table, when) != ("commit", "after") else {1, 3, 6}
    assert set(trace.class_gradients["step"]) == set(trace.parameters["step"]) == whole
    rows = Counter(trace.classifier["step"])
    assert rows == dict.fromkeys(whole, CLASSES), "those of the last whole step came when the trace was closed"


def test_names_that_repeat_are_encoded_once() -> None:
    assert tables._repeated(("a", "b"), 3) is tables._repeated(("a", "b"), 3)
