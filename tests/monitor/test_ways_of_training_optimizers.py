"""Optimizers, with one kernel a parameter (plain), for all of them (foreach), or fused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from loops import monitored, train
from networks import Mlp
from torch import Tensor, nn
from ways import CLASSES, assert_exact

from imbdyn import ImbdynWarning, Monitor, open_trace

IMPLEMENTATIONS = {"plain": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4}),
    "adam": (torch.optim.Adam, {"lr": 0.01}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01}),
}


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Mlp(features=72)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_implementation_trains_as_without_a_monitor(
    model: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path, name: str, implementation: str
) -> None:
    make, options = OPTIMIZERS[name]

    def optimizer(of: nn.Module) -> Any:
        return make(of.parameters(), **options, **IMPLEMENTATIONS[implementation])

    bare = copy.deepcopy(model)
    train(bare, [(images, labels)] * 20, optimizer=optimizer(bare))
    trace = monitored(model, [(images, labels)] * 20, tmp_path / "run", optimizer=optimizer(model))
    assert_exact(trace)
    assert len(trace.parameters) == 20 * 6
    for (parameter, p), q in zip(model.named_parameters(), bare.parameters(), strict=True):
        assert torch.equal(p, q), parameter


def test_lbfgs_is_refused_in_one_sentence(model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^LBFGS runs the model several times inside one step; .*tell its steps"):
        Monitor(model, torch.optim.LBFGS(model.parameters()), CLASSES, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_closure_is_one_warning_and_changes_no_weight(
    model: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    bare = copy.deepcopy(model)

    def closure_of(network: nn.Module, optimizer: torch.optim.Optimizer, monitor: Monitor | None) -> Any:
        def closure() -> Tensor:
            optimizer.zero_grad()
            if monitor is None:
                loss = F.cross_entropy(network(images), labels)
                loss.backward()
                return loss
            with monitor.batch(labels):
                loss = F.cross_entropy(network(images), labels)
                loss.backward()
            return loss

        return closure

    plain = torch.optim.SGD(bare.parameters(), lr=0.1)
    for _ in range(20):
        plain.step(closure_of(bare, plain, None))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        closure = closure_of(model, optimizer, monitor)
        with pytest.warns(ImbdynWarning, match=r"came inside optimizer\.step\(closure\)"):
            optimizer.step(closure)
        for _ in range(19):
            optimizer.step(closure)  # a second warning would be an error
    trace = open_trace(tmp_path / "run")
    assert trace.run["problems"]["closure"]["times"] == 20
    assert trace.steps.step.max() == 20
    for (parameter, p), q in zip(model.named_parameters(), bare.parameters(), strict=True):
        assert torch.equal(p, q), parameter


def test_a_step_is_not_read_whose_last_batch_comes_in_a_closure(
    model: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    """Accumulation, the last micro-batch inside of step(closure): a part of the gradient is not that of the step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:

        def micro_batch() -> Tensor:
            with monitor.batch(labels):
                loss = F.cross_entropy(model(images), labels) / 2
                loss.backward()
            return loss

        micro_batch()
        with pytest.warns(ImbdynWarning, match=r"came inside optimizer\.step\(closure\)"):
            optimizer.step(micro_batch)
        optimizer.zero_grad()
        micro_batch()
        optimizer.step(micro_batch)
    trace = open_trace(tmp_path / "run")
    assert trace.run["problems"]["closure"]["times"] == 2
    assert trace.run["overhead"]["sampled_steps"] == 0
    assert trace.class_gradients.empty
    assert trace.steps[["since_step", "step", "count", "sampled"]].to_numpy().tolist() == [[0, 2, 4 * 24, False]]
