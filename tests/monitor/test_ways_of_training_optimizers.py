"""Optimizers, with one kernel a parameter (plain), for all of them (foreach), or fused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from loops import monitored, train
from networks import Mlp
from torch import Tensor, nn
from ways import CLASSES, assert_exact

from imbdyn import Monitor

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
