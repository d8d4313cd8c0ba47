"""Batches that come inside of `optimizer.step(closure)`: as in Lightning's automatic optimization, and in SAM."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from loops import monitored
from networks import Mlp
from torch import Tensor, nn
from ways import CLASSES, assert_exact

from imbdyn import ImbdynWarning, Monitor, Trace, open_trace
from imbdyn.trace.schema import TABLES

STEPS = 6


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Mlp(features=72)


def assert_same_rows(a: Trace, b: Trace) -> None:
    """Of all tables, but for the times."""
    for name in TABLES:
        of_a, of_b = (trace.table(name).to_pandas().filter(regex="^(?!.*seconds)") for trace in (a, b))
        pd.testing.assert_frame_equal(of_a, of_b, check_exact=True)
    assert not a.table("class_gradients").to_pandas().empty


def assert_same_weights(a: nn.Module, b: nn.Module) -> None:
    for (name, p), q in zip(a.named_parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q), name


@pytest.mark.parametrize("given", ["positional", "by name"])
@pytest.mark.parametrize("micro_batches", [1, 3])
def test_the_trace_is_that_of_a_loop_without_closure(
    model: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path, micro_batches: int, given: str
) -> None:
    """Of the micro-batches of a step, the last comes in the closure."""
    without = copy.deepcopy(model)
    expected = monitored(
        without, [(images, labels)] * micro_batches * STEPS, tmp_path / "a", micro_batches=micro_batches
    )

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with Monitor(model, optimizer, CLASSES, tmp_path / "b", interval=1) as monitor:

        def micro_batch() -> Tensor:
            with monitor.batch(labels):
                loss = F.cross_entropy(model(images), labels)
                loss.backward()
            return loss

        for _ in range(STEPS):
            for _ in range(micro_batches - 1):
                micro_batch()
            loss = optimizer.step(micro_batch) if given == "positional" else optimizer.step(closure=micro_batch)
            assert loss is not None
            assert loss.isfinite(), "what the closure returns is what step returns"
            optimizer.zero_grad()
    trace = open_trace(tmp_path / "b")
    assert_exact(trace)
    assert_same_rows(trace, expected)
    assert_same_weights(model, without)


def test_a_batch_that_is_open_around_the_step(model: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    """As a Lightning callback has it: entered when the batch starts, left when it has ended, the step in between."""
    without = copy.deepcopy(model)
    expected = monitored(without, [(images, labels)] * STEPS, tmp_path / "a")

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def closure() -> Tensor:
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        return loss

    with Monitor(model, optimizer, CLASSES, tmp_path / "b", interval=1) as monitor:
        for _ in range(STEPS):
            with monitor.batch(labels):
                optimizer.step(closure)
    trace = open_trace(tmp_path / "b")
    assert_exact(trace)
    assert_same_rows(trace, expected)
    assert_same_weights(model, without)


class Halved(torch.optim.SGD):
    """Steps by its parent's step, which torch gives hooks of its own."""

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        return super().step(closure)


@pytest.mark.parametrize("with_closure", [False, True])
def test_a_step_that_calls_that_of_its_parent_is_one_step(
    model: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path, with_closure: bool
) -> None:
    without = copy.deepcopy(model)
    expected = monitored(without, [(images, labels)] * STEPS, tmp_path / "a")
    assert torch.optim.SGD.step.hooked, "made above, so that the parent's step has hooks"

    optimizer = Halved(model.parameters(), lr=0.1, momentum=0.9)
    with Monitor(model, optimizer, CLASSES, tmp_path / "b", interval=1) as monitor:

        def closure() -> Tensor:
            optimizer.zero_grad()
            with monitor.batch(labels):
                loss = F.cross_entropy(model(images), labels)
                loss.backward()
            return loss

        for _ in range(STEPS):
            if with_closure:
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
    trace = open_trace(tmp_path / "b")
    assert_exact(trace)
    assert_same_rows(trace, expected)
    assert_same_weights(model, without)


def test_after_a_step_that_failed_the_next_ones_are_read(
    model: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:

        def closure(fails: bool = False) -> Tensor:
            optimizer.zero_grad()
            with monitor.batch(labels):
                loss = F.cross_entropy(model(images), labels)
                loss.backward()
            if fails:
                raise KeyboardInterrupt
            return loss

        optimizer.step(closure)
        with pytest.raises(KeyboardInterrupt):
            optimizer.step(lambda: closure(fails=True))
        optimizer.step(closure)
        closure()
        optimizer.step()
    trace = open_trace(tmp_path / "run")
    assert_exact(trace)
    assert sorted(trace.parameters.step.unique()) == [1, 2, 3]


class Ascending(torch.optim.SGD):
    """Sharpness-aware minimisation: climbs, has the closure make the gradients up there, goes back and steps."""

    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        parameters = self.param_groups[0]["params"]
        before = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for p in parameters:
                p.add_(p.sign(), alpha=0.01)
        loss = closure()
        with torch.no_grad():
            for p, old in zip(parameters, before, strict=True):
                p.copy_(old)
        super().step()
        return loss


class Twice(torch.optim.SGD):
    """Asks twice, as a line search does."""

    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        closure()
        loss = closure()
        super().step()
        return loss


class Deaf(torch.optim.SGD):
    """Does not call the closure."""

    def step(self, _closure: Callable[[], Tensor]) -> None:  # type: ignore[override]
        super().step()


@pytest.mark.parametrize("kind", [Ascending, Twice, Deaf])
def test_gradients_that_may_not_be_those_of_the_step_are_one_warning(
    model: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path, kind: type[Any]
) -> None:
    bare = copy.deepcopy(model)

    def run(network: nn.Module, monitor: Monitor | None, optimizer: torch.optim.Optimizer) -> None:
        def backward() -> Tensor:
            loss = F.cross_entropy(network(images), labels)
            loss.backward()
            return loss

        def closure() -> Tensor:
            optimizer.zero_grad()
            if monitor is None:
                return backward()
            with monitor.batch(labels):
                return backward()

        closure()  # so that there is a gradient, and a batch, if the optimizer asks for none
        optimizer.step(closure)

    plain = kind(bare.parameters(), lr=0.1)
    for _ in range(STEPS):
        run(bare, None, plain)

    optimizer = kind(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        with pytest.warns(ImbdynWarning, match=r"^this optimizer's step\(closure\) moves the weights"):
            run(model, monitor, optimizer)
        for _ in range(STEPS - 1):
            run(model, monitor, optimizer)  # a second warning would be an error
    trace = open_trace(tmp_path / "run")
    assert trace.run["problems"]["closure"]["times"] == STEPS
    assert trace.run["overhead"]["sampled_steps"] == 0
    assert trace.class_gradients.empty
    assert trace.steps["step"].max() == STEPS
    assert trace.classes["count"].sum() % len(labels) == 0
    assert_same_weights(model, bare)
