"""Numbers that come late, as from a GPU: the trace is the same, its rows come in order, and nothing is lost.

Here all is on the CPU: what is sent comes when the test says so, and nobody looks at a tensor before.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loops import CLASSES, monitored
from networks import Mlp
from numpy.typing import NDArray
from same_trace import assert_same_trace
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from ways import NormalisedCnn, VisionTransformer

from imbdyn import ImbdynWarning, Monitor, Trace, open_trace
from imbdyn.monitor import arrivals
from imbdyn.monitor.cadence import Cadence
from imbdyn.monitor.classes import Classes
from imbdyn.monitor.parts import Piece, class_gradients
from imbdyn.taps import Convolution, Layout, Lookup, Rows
from imbdyn.trace import TraceWriter


class Late:
    """Numbers as they were when they were sent, which come when `ready` says so, or when somebody waits for them."""

    def __init__(self, tensors: Sequence[Tensor], ready: Callable[[], bool]) -> None:
        self._numbers = [t.detach().double().clone().numpy() for t in tensors]
        self._ready = ready
        self.waited_for = False

    def has_come(self) -> bool:
        return self.waited_for or self._ready()

    def numbers(self) -> list[NDArray[np.float64]]:
        self.waited_for |= not self._ready()
        return self._numbers


class Device:
    """Sends numbers like a GPU does.

    Attributes:
        queries: how often it is asked whether numbers have come before they have; None: they never come by themselves.
    """

    def __init__(self, queries: int | None) -> None:
        self.queries = queries
        self.sent: list[Late] = []

    def send(self, tensors: Sequence[Tensor]) -> Late:
        left = self.queries

        def ready() -> bool:
            nonlocal left
            if left is None:
                return False
            left -= 1
            return left < 0

        self.sent.append(Late(tensors, ready))
        return self.sent[-1]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device(None)
    monkeypatch.setattr(arrivals, "send", device.send)
    monkeypatch.setattr(arrivals, "may_look", lambda _: False)
    return device


@pytest.fixture
def batches() -> list[tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(1)
    return [
        (torch.randn(24, 2, 6, 6, generator=random), torch.randint(0, CLASSES - i % 2, (24,), generator=random))
        for i in range(10)
    ]


class TwoScales(nn.Module):
    """A weight that is used twice and values made of parameters: class gradients that have to be made."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.scale = nn.Linear(72, 72), nn.Parameter(torch.ones(2, 72))
        self.kernel = nn.Parameter(0.1 * torch.randn(2, 2, 3, 3))
        self.head = nn.Linear(72, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(F.conv2d(x, self.kernel, padding=1), self.kernel, padding=1).flatten(1)
        x = torch.tanh(self.inner(x)) * self.scale.sum(0)
        return self.head(torch.tanh(self.inner(x) @ self.inner.weight) * self.scale[0])


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


LOOKS = {
    "aten::_local_scalar_dense",
    "aten::is_nonzero",
    "aten::nonzero",
    "aten::masked_select",
    "aten::bincount",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::repeat_interleave",
    "aten::equal",
}


class NobodyLooks(TorchDispatchMode):
    """Finds the calls that would wait for a GPU: those whose results, or the sizes of these, the host must know.

    It sees our own ops from outside: whether they wait is the affair of what implements them on a GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        selects = name.startswith("aten::index") and any(
            isinstance(i, Tensor) and i.dtype == torch.bool
            for arg in args
            if isinstance(arg, (list, tuple))
            for i in arg
        )
        states = name == "aten::equal" and args[0].dtype == torch.uint8  # of random generators, which the host has
        if (name in LOOKS and not states) or selects:
            frames = [f for f in traceback.extract_stack() if "imbdyn" in f.filename]
            self.found.append(f"{name} in {frames[-1].filename}:{frames[-1].lineno}" if frames else name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("make", [lambda: Mlp(features=72), NormalisedCnn, VisionTransformer, TwoScales])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_nobody_looks_at_a_tensor_once_the_model_is_learned(
    tmp_path: Path,
    device: Device,
    batches: list[tuple[Tensor, Tensor]],
    make: Callable[[], nn.Module],
    micro_batches: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("imbdyn.monitor.monitor.check_values", lambda *_: None)  # of labels on the CPU only
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=2) as monitor:
        for step in range(0, len(batches), micro_batches):
            with NobodyLooks() as looks:
                for x, y in batches[step : step + micro_batches]:
                    with monitor.batch(y):
                        F.cross_entropy(model(x), y).backward()
                optimizer.step()
            optimizer.zero_grad()
            assert step < 2 * micro_batches or looks.found == []
    trace = open_trace(tmp_path / "run")
    assert trace.run["problems"] == {}
    assert trace.run["coverage"]["share"] == 1.0
    assert device.sent


def test_who_looks_is_seen() -> None:
    with NobodyLooks() as looks:
        Classes.of([torch.tensor([0, 2, 2])], CLASSES, -100)
        torch.ones(3)[torch.tensor([True, False, True])].sum().item()
    assert [found.split()[0] for found in looks.found] == ["aten::_unique2", "aten::index", "aten::_local_scalar_dense"]
    assert "classes.py" in looks.found[0]


class Training:
    """Steps of a network, each with a label of its own count, so that a row shows whose it is."""

    def __init__(self, out: Path, **options: Any) -> None:
        torch.manual_seed(0)
        self.out = out
        self.model = nn.Linear(4, CLASSES)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.monitor = Monitor(self.model, self.optimizer, CLASSES, out, **{"interval": 1, **options})
        self.steps = 0

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.steps += 1
            n = 10 + self.steps
            with self.monitor.batch(torch.arange(n) % CLASSES):
                F.cross_entropy(self.model(torch.randn(n, 4)), torch.arange(n) % CLASSES).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()

    def trace(self) -> Trace:
        return open_trace(self.out)

    def written(self) -> list[int]:
        steps = sorted(self.trace().steps.step)
        assert sorted(set(self.trace().parameters.step)) == steps
        assert sorted(set(self.trace().class_gradients.step)) == steps
        return [int(step) for step in steps]


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


@pytest.mark.parametrize(
    "labels",
    [
        [[0, 0, 3, 1, 3]],
        [[0, 0, 3, -100, 3]],
        [[2], [4, 4], [2, 0, -1, 999]],
        [[-100, -100]],
        [list(range(5)) * 4],
        [[], [1]],
    ],
    ids=str,
)
def test_classes_are_numbered_without_looking(labels: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = [torch.tensor(of_batch, dtype=torch.int64) for of_batch in labels]
    here = Classes.of(tensors, CLASSES, 2)
    monkeypatch.setattr(arrivals, "may_look", lambda _: False)
    there = Classes.of(tensors, CLASSES, 2)
    assert there.groups == min(sum(map(len, labels)), CLASSES + 1) >= here.groups
    assert there.ids[: here.groups].tolist() == here.ids.tolist()
    assert there.count[: here.groups].tolist() == here.count.tolist()
    assert (there.ids[here.groups :] == CLASSES + 1).all()
    assert (there.count[here.groups :] == 0).all()
    for a, b in zip(here.labels, there.labels, strict=True):
        assert a.tolist() == b.tolist()


def test_class_gradients_are_made_without_selecting(monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    labels, layout = torch.tensor([0, 2, 1, 0]), Layout(0, 1, 1)
    indices = torch.tensor([[0, 5], [-1, 5], [2, 2], [0, -1]])
    image, dy = draw(4, 3, 5, 5), draw(4, 2, 3, 3)
    parts = [
        Rows(draw(4, 6, 3), draw(4, 6, 2)),
        Lookup(indices, draw(4, 2, 3), 6),
        Convolution(image, dy, (3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    ]
    pieces = [Piece(part, layout, labels, dy) for part in parts]
    here = [class_gradients(piece, 3) for piece in pieces]
    monkeypatch.setattr(arrivals, "may_look", lambda _: False)
    for piece, expected in zip(pieces, here, strict=True):
        torch.testing.assert_close(class_gradients(piece, 3), expected)
    lookup = torch.zeros(3, 6, 3, dtype=torch.float64)
    for n, place in [(n, place) for n in range(4) for place in range(2) if indices[n, place] >= 0]:
        lookup[labels[n], indices[n, place]] += parts[1].grad_outputs[n, place]
    torch.testing.assert_close(here[1], lookup.flatten(1))


class DeviceClock:
    """A GPU that works behind the host: moments pass when the host has gone on for `lag` seconds."""

    runs_behind = True

    def __init__(self, lag: int) -> None:
        self.lag = lag
        self.work = 0.0
        self.told = 0

    def now(self) -> tuple[int, float]:
        self.told += 1
        return self.told, self.work

    def has_passed(self, moment: tuple[int, float]) -> bool:
        return self.told - moment[0] >= self.lag

    def seconds(self, earlier: tuple[int, float], later: tuple[int, float]) -> float:
        return later[1] - earlier[1]


@pytest.mark.parametrize("lag", [0, 3, 20])
@pytest.mark.parametrize("ours", [1e-4, 4e-3])
def test_the_budget_is_kept_on_a_clock_that_runs_behind(lag: int, ours: float) -> None:
    """A sampled step takes 5 ms more of the GPU's time, whatever the host took for it meanwhile."""
    clock = DeviceClock(lag)
    cadence = Cadence(0.01, None)
    cadence.start(clock)
    sampled_steps = 0
    for _ in range(20_000):
        sampled = cadence.gradients_due()
        clock.work += 0.01 + 0.005 * sampled
        cadence.spend(ours if sampled else 1e-5)
        cadence.step_done(sampled=sampled, logits=True)
        sampled_steps += sampled
    assert sampled_steps == pytest.approx(0.009 * 20_000 * 0.01 / 0.005, rel=0.1), "1% less the 0.1% of the logits"
    record = cadence.record()
    spent = record["seconds"]
    assert spent == pytest.approx(0.01 * 20_000 * 0.01, rel=0.05), "what it cost, not what the host took"
    assert record["hidden_seconds"] == pytest.approx(sampled_steps * (0.005 - ours + 1e-5), rel=0.05)


def test_a_lap_on_the_device_is_known_later() -> None:
    clock = DeviceClock(1000)
    cadence = Cadence(0.01, 1)
    cadence.start(clock)
    for _ in range(4):
        clock.work += 0.02
        cadence.spend(0.001)
        cadence.step_done(sampled=False, logits=True)
    lap = cadence.lap(4)
    clock.work += 5.0
    assert lap.step_seconds() == pytest.approx(0.02)
    assert lap.overhead_seconds == pytest.approx(0.004)
