"""What goes wrong after the step whose numbers come late: the other steps keep theirs, and it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from late import Device, Training
from loops import CLASSES
from torch import Tensor, nn

from imbdyn import ImbdynWarning, Monitor, open_trace
from imbdyn.trace import TraceWriter


@pytest.mark.parametrize("table", ["parameters", "class_gradients", "steps", "classes"])
@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_a_step_that_fails_late_takes_nothing_of_the_others(
    tmp_path: Path,
    device: Device,
    monkeypatch: pytest.MonkeyPatch,
    table: str,
    failure: type[BaseException],
) -> None:
    append = TraceWriter.append
    failed = False

    def failing(self: TraceWriter, name: str, **columns: Any) -> None:
        nonlocal failed
        if name == table and columns["step"] == 3 and not failed:
            failed = True
            raise failure("late")
        append(self, name, **columns)

    monkeypatch.setattr(TraceWriter, "append", failing)
    training = Training(tmp_path / "run")
    training.step(4)
    if failure is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            training.step()
        training.optimizer.zero_grad()
    else:
        with pytest.warns(ImbdynWarning, match="recording a step and training goes on: RuntimeError: late"):
            training.step()
    training.step(2)
    training.monitor.close()
    assert failed
    trace = training.trace()
    assert trace.steps[["since_step", "step"]].to_numpy().tolist() == [[0, 1], [1, 2], [2, 4], [4, 5], [5, 6], [6, 7]]
    assert trace.steps["count"].tolist() == [11, 12, 13 + 14, 15, 16, 17], "the next window has what step 3 had"
    assert sorted(trace.parameters.step.unique()) == [1, 2, 4, 5, 6, 7]
    assert sorted(trace.class_gradients.step.unique()) == [1, 2, 4, 5, 6, 7]
    assert device.sent


def test_the_last_step_that_fails_late_leaves_its_logits(
    tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = TraceWriter.append

    def failing(self: TraceWriter, name: str, **columns: Any) -> None:
        if name == "class_gradients" and columns["step"] >= 2:
            raise RuntimeError("late")
        append(self, name, **columns)

    monkeypatch.setattr(TraceWriter, "append", failing)
    training = Training(tmp_path / "run")
    training.step(2)
    training.monitor.epoch = 1
    with pytest.warns(ImbdynWarning, match="writing the trace and training goes on: RuntimeError: late"):
        training.monitor.state_dict()
    training.monitor.close()
    trace = training.trace()
    assert trace.steps[["since_step", "step", "count"]].to_numpy().tolist() == [[0, 1, 11], [1, 2, 12]]
    assert trace.run["status"] == "finished"
    assert device.sent


def test_on_error_raise_raises_late_too(tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(tmp_path / "run", on_error="raise")
    training.step(2)
    monkeypatch.setattr(TraceWriter, "append", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        training.step()
    monkeypatch.undo()
    training.monitor.close()
    assert training.trace().steps["count"].sum() == 11 + 12 + 13
    assert device.sent


def test_a_step_that_was_left_out_is_known_late(tmp_path: Path, device: Device) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    x, y = torch.randn(10, 4), torch.arange(10) % CLASSES
    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        for step in range(1, 5):
            # as a GradScaler does for the time of the step
            scale = optimizer.grad_scale = torch.tensor(1024.0)
            optimizer.found_inf = torch.tensor(float(step == 3))
            with monitor.batch(y):
                (1024 * F.cross_entropy(model(x), y)).backward()
            optimizer.step()
            scale.fill_(torch.nan)  # what it had is on its way
            optimizer.zero_grad()
    trace = open_trace(tmp_path / "run")
    assert trace.steps.sampled.tolist() == [True, True, False, True]
    assert trace.steps["count"].tolist() == [10] * 4
    assert trace.steps.grad_norm.isna().tolist() == [False, False, True, False]
    assert trace.steps.grad_norm.max() < 10
    np.testing.assert_allclose(trace.steps.grad_scale.dropna(), 1 / 1024, rtol=1e-5)
    assert trace.parameters.residual.max() < 1e-5
    assert trace.run["overhead"]["sampled_steps"] == 3
    assert device.sent


@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradients_that_were_thrown_away_are_no_part_of_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_to_none: bool
) -> None:
    training = Training(tmp_path / "run")
    training.step(2)
    looked = 0
    has_any = Tensor.any

    def any_of(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        nonlocal looked
        looked += 1
        return has_any(self, *args, **kwargs)

    monkeypatch.setattr(Tensor, "any", any_of)
    x, y = torch.randn(5, 4), torch.arange(5)
    for _ in range(2):
        with training.monitor.batch(y):
            F.cross_entropy(training.model(x), y).backward()
    assert looked == 0, "a micro-batch that follows another is no reason to look at gradients"
    training.optimizer.zero_grad(set_to_none=set_to_none)
    training.step()
    monkeypatch.undo()
    training.monitor.close()
    trace = training.trace()
    assert trace.steps.gradient_batches.tolist() == [1, 1, 1]
    assert trace.parameters.residual.max() < 1e-5
