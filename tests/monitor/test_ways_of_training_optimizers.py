"""Optimizers, with one kernel a parameter (plain), for all of them (foreach), or fused."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
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


@pytest.fixture
def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


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


class _Wrapper(torch.optim.Optimizer):
    """Steps the optimizer inside of it by another name, as a sharpness-aware one does (or never: Accelerate's)."""

    def __init__(self, inside: torch.optim.Optimizer) -> None:
        super().__init__(inside.param_groups, inside.defaults)
        self.inside = inside

    def second_step(self) -> None:
        self.inside.step()


class _Bare(torch.optim.Optimizer):
    """Passes over Optimizer.__init__, as some wrappers do."""

    def __init__(self, inside: torch.optim.Optimizer, **hooks: OrderedDict[int, Any]) -> None:
        self.__dict__.update(hooks)
        self.inside, self.state = inside, inside.state
        self.param_groups, self.defaults = inside.param_groups, inside.defaults

    def step(self, closure: Any = None) -> Any:
        return self.inside.step(closure)


@pytest.mark.parametrize("interval", [1, 100], ids=["sampled", "not sampled"])
def test_a_wrapper_whose_step_nobody_calls_is_one_warning(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    tmp_path: Path,
    interval: int,
) -> None:
    wrapper = _Wrapper(optimizer)

    def step(monitor: Monitor) -> None:
        with monitor.batch(labels):
            F.cross_entropy(model(images), labels).backward()
        wrapper.second_step()
        wrapper.zero_grad()

    with Monitor(model, wrapper, CLASSES, tmp_path / "run", interval=interval) as monitor:
        for _ in range(3):
            step(monitor)
        with pytest.warns(ImbdynWarning, match=r"^no step of the optimizer .* is seen, and the weights move: give it"):
            step(monitor)
        step(monitor)
    assert open_trace(tmp_path / "run").run["problems"]["no step"]["times"] == 2


def test_an_optimizer_that_was_replaced_is_one_warning(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    other = torch.optim.Adam(model.parameters(), lr=0.01)
    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=100) as monitor:
        train(model, [(images, labels)] * 5, optimizer=optimizer, monitor=monitor)
        with pytest.warns(ImbdynWarning, match="nor one that another has replaced"):
            train(model, [(images, labels)] * 4, optimizer=other, monitor=monitor)
    assert open_trace(tmp_path / "run").run["overhead"]["steps"] == 5


@pytest.mark.parametrize("interval", [1, 100], ids=["sampled", "not sampled"])
def test_weights_that_a_step_moves_for_a_look_and_a_forward_pass_that_writes_are_let_pass(
    images: Tensor, labels: Tensor, tmp_path: Path, interval: int
) -> None:
    """Sharpness-aware minimisation, and an embedding with max_norm under accumulation."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(72, CLASSES))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with Monitor(network, optimizer, CLASSES, tmp_path / "sharp", interval=interval) as monitor:
        for _ in range(6):
            with monitor.batch(labels):
                F.cross_entropy(network(images), labels).backward()
            before = [p.detach().clone() for p in network.parameters()]
            with torch.no_grad():
                for p in network.parameters():
                    p.add_(p.grad, alpha=0.05)
            optimizer.zero_grad()
            with monitor.batch(labels):
                F.cross_entropy(network(images), labels).backward()
            with torch.no_grad():
                for p, q in zip(network.parameters(), before, strict=True):
                    p.copy_(q)
            optimizer.step()
            optimizer.zero_grad()
    assert open_trace(tmp_path / "sharp").run["problems"] == {}

    words = nn.Sequential(nn.Embedding(7, 6, max_norm=0.1), nn.Flatten(), nn.Linear(24, CLASSES))
    optimizer = torch.optim.SGD(words.parameters(), lr=0.1)
    text = torch.arange(4 * len(labels)).view(-1, 4) % 7
    with Monitor(words, optimizer, CLASSES, tmp_path / "words", interval=100) as monitor, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "class gradients cover")
        train(words, [(text, labels)] * 16, micro_batches=8, optimizer=optimizer, monitor=monitor)
    assert "no step" not in open_trace(tmp_path / "words").run["problems"]


def test_a_wrapper_without_step_hooks_is_refused(
    model: nn.Module, optimizer: torch.optim.Optimizer, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"^_Bare wraps an optimizer .*: give Monitor the one inside"):
        Monitor(model, _Bare(optimizer), CLASSES, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    Monitor(model, optimizer, CLASSES, tmp_path / "run").close()  # the model is free


def test_the_first_step_of_a_wrapper_is_seen(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    """torch puts the hooks around its step() in zero_grad() only."""
    hooks = {f"_optimizer_step_{when}_hooks": OrderedDict[int, Any]() for when in ("pre", "post")}
    wrapper = _Bare(optimizer, **hooks)
    with Monitor(model, wrapper, CLASSES, tmp_path / "run", interval=1) as monitor:
        train(model, [(images, labels)] * 3, optimizer=wrapper, monitor=monitor)
    assert open_trace(tmp_path / "run").steps.step.tolist() == [1, 2, 3]


def test_a_model_that_takes_no_hooks_leaves_nothing_behind(tmp_path: Path) -> None:
    class Refuses(Mlp):
        def register_forward_hook(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("no hooks")

    model = Refuses(features=72)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"^no hooks$"):
            Monitor(model, optimizer, CLASSES, tmp_path / "run")
    assert not (tmp_path / "run").exists()
