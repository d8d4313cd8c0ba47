"""Numbers that come late, as from a GPU: the trace is the same, its rows come in order, and nothing is lost."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from late import Device, Training
from loops import CLASSES, monitored
from networks import Mlp
from same_trace import assert_same_trace
from torch import Tensor, nn
from ways import NormalisedCnn

from imbdyn.monitor import arrivals
from imbdyn.trace import TraceWriter

NETWORKS: dict[str, Callable[[], nn.Module]] = {"mlp": lambda: Mlp(features=72), "cnn": NormalisedCnn}


@pytest.fixture(params=list(NETWORKS))
def twins(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    network = NETWORKS[request.param]()
    return network, copy.deepcopy(network)


@pytest.mark.parametrize("queries", [0, 1, 5, None])
@pytest.mark.parametrize("options", [{"interval": 1}, {"interval": 3}, {"interval": 2, "micro_batches": 2}], ids=str)
def test_the_trace_is_the_same(
    twins: tuple[nn.Module, nn.Module],
    batches: list[tuple[Tensor, Tensor]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    queries: int | None,
    options: dict[str, Any],
) -> None:
    batches[3][1][:5] = -100
    punctual = monitored(twins[0], batches, tmp_path / "punctual", **options)
    device = Device(queries)
    monkeypatch.setattr(arrivals, "send", device.send)
    monkeypatch.setattr(arrivals, "may_look", lambda _: False)
    late = monitored(twins[1], batches, tmp_path / "late", **options)
    assert len(device.sent) >= 4
    # the order of classes, and so of sums, is the same, though there are more groups
    assert_same_trace(punctual, late, relative=1e-6)
    for field in ("class_counts", "coverage", "problems", "classifier"):
        assert late.run[field] == punctual.run[field]
    for name in ("steps", "sampled_steps", "logits_steps"):
        assert late.run["overhead"][name] == punctual.run["overhead"][name]


def test_rows_come_in_order_when_their_numbers_have_come_and_at_most_two_steps_later(
    tmp_path: Path, device: Device
) -> None:
    training = Training(tmp_path / "run")
    training.step(2)
    assert training.written() == []
    first, second = device.sent
    device.sent[1]._ready = lambda: True
    training.step()
    assert training.written() == [1, 2], "the third step waits for the first; the second had come, and waited for it"
    assert (first.waited_for, second.waited_for) == (True, False)
    device.sent[2]._ready = lambda: True
    training.step()
    assert training.written() == [1, 2, 3]
    assert not device.sent[2].waited_for
    training.step()
    assert training.written() == [1, 2, 3], "two are on their way"
    training.monitor.close()
    assert training.written() == [1, 2, 3, 4, 5]
    trace = training.trace()
    assert trace.steps["count"].tolist() == [11, 12, 13, 14, 15]
    assert trace.run["status"] == "finished"
    assert (
        trace.run["class_counts"]
        == np.bincount(np.concatenate([np.arange(n) % CLASSES for n in range(11, 16)])).tolist()
    )


def test_an_unsampled_step_writes_what_has_come(tmp_path: Path, device: Device) -> None:
    training = Training(tmp_path / "run", interval=3)
    training.step()
    assert training.written() == []
    device.sent[0]._ready = lambda: True
    training.step()
    assert training.written() == [1]
    training.monitor.close()


def test_learning_rate_and_epoch_are_those_of_the_step(tmp_path: Path, device: Device) -> None:
    training = Training(tmp_path / "run", interval=2)
    for epoch in range(3):
        training.monitor.epoch = epoch
        training.optimizer.param_groups[0]["lr"] = 0.1 * (1 + epoch)
        training.step(2)
    training.monitor.close()
    steps = training.trace().steps
    assert steps.step.tolist() == [1, 2, 4, 6]
    assert steps.epoch.tolist() == [0, 0, 1, 2]
    np.testing.assert_allclose(steps.lr, [0.1, 0.1, 0.2, 0.3])
    assert device.sent


def test_a_flush_closes_windows_in_order(tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TraceWriter.__init__.__kwdefaults__, "flush_seconds", 0.0)
    training = Training(tmp_path / "run", interval=1000)
    training.step(40)
    assert device.sent
    training.monitor.close()
    steps = training.trace().steps
    assert steps[["since_step", "step", "sampled"]].to_numpy().tolist() == [
        [0, 1, True],
        [1, 17, False],
        [17, 33, False],
        [33, 40, False],
    ]
    assert steps["count"].sum() == sum(range(11, 51))


def test_an_evaluation_and_a_state_wait_for_what_is_on_its_way(tmp_path: Path, device: Device) -> None:
    training = Training(tmp_path / "run")
    training.step(2)
    y = torch.arange(7) % CLASSES
    with training.monitor.evaluate("test"), torch.no_grad(), training.monitor.batch(y):
        training.model(torch.randn(7, 4))
    assert training.trace().steps[["step", "split"]].to_numpy().tolist() == [[1, "train"], [2, "test"], [2, "train"]]
    training.step(2)
    state = training.monitor.state_dict()
    assert sorted(training.trace().parameters.step.unique()) == [1, 2, 3, 4]
    assert sum(state["class_counts"]) == 11 + 12 + 13 + 14
    training.monitor.close()
    assert all(late.waited_for for late in device.sent)


def test_a_resumed_training_goes_on_after_what_was_waited_for(tmp_path: Path, device: Device) -> None:
    first = Training(tmp_path / "run")
    first.step(3)
    state = first.monitor.state_dict()
    first.step(2)  # which are superseded
    first.monitor.close("interrupted")
    second = Training(tmp_path / "run", resume=True)
    second.steps = 3
    second.monitor.load_state_dict(state)
    second.step(2)
    second.monitor.close()
    assert second.written() == [1, 2, 3, 4, 5]
    assert second.trace().steps["count"].tolist() == [11, 12, 13, 14, 15]
    assert sum(second.trace().run["class_counts"]) == 11 + 12 + 13 + 14 + 15
    assert device.sent
