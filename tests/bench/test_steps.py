from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import imbdyn
from imbdyn.bench.networks import TINY, Case, Transformer
from imbdyn.bench.steps import Loop, weight_products
from imbdyn.experiments.models.cifar_resnet import CifarResNet

SMALL = {
    **TINY,
    "ResNet": Case(lambda: CifarResNet(10, blocks=1), 10, (4, 3, 32, 32)),
    "transformer": Case(lambda: Transformer(16, 1, 2, 5, 11, 3), 3, (4, 5), 11),
}


@pytest.mark.parametrize("name", SMALL)
def test_the_floor_makes_the_weight_gradients_of_all_layers(name: str) -> None:
    case = SMALL[name]
    model, (x, y) = case.model(), case.batch()
    F.cross_entropy(model(x), y).backward()
    layers = [layer for layer in model.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    wanted = sorted((layer.weight.grad for layer in layers), key=lambda grad: float(grad.norm()))
    made = sorted(weight_products(case)(), key=lambda grad: float(grad.norm()))
    assert len(made) == len(layers) > 1
    for gradient, grad in zip(made, wanted, strict=True):
        torch.testing.assert_close(gradient, grad, rtol=1e-4, atol=1e-6)


def test_bare_and_monitored_loops_train_alike(tmp_path: Path) -> None:
    case = TINY["digits CNN, N 64"]
    bare, monitored = Loop(case), Loop(case, tmp_path / "run", interval=1)
    for loop in (bare, monitored):
        assert loop.seconds(2) > 0
        loop.close()
    for p, q in zip(bare.model.parameters(), monitored.model.parameters(), strict=True):
        assert torch.equal(p, q)
    overhead = imbdyn.open_trace(tmp_path / "run").run["overhead"]
    assert (overhead["steps"], overhead["sampled_steps"]) == (2, 2)
