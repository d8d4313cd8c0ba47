"""Networks and comparisons for the ways of training: what is read must be what masked backward passes give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import imbdyn
from imbdyn.reference import class_gradients

CLASSES = 5


class NormalisedCnn(nn.Module):
    """Convolutions with BatchNorm, which mixes the samples in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 8, 3, stride=2)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x)), inplace=True)
        return self.head(F.relu(self.second(x)).mean((2, 3)))


class VisionTransformer(nn.Module):
    """Patches, a class token, a position embedding and an encoder."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.patches = nn.Conv2d(2, 16, 3, stride=3)
        self.token = nn.Parameter(0.1 * torch.randn(1, 1, 16))
        self.position = nn.Parameter(0.1 * torch.randn(1, 5, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout, batch_first=True, norm_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.position
        return self.head(self.norm(self.encoder(tokens))[:, 0])


def by_loss(model: nn.Module, losses: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Class gradients [C, ...] of the terms [N] of a loss, one backward pass a class."""
    return class_gradients(losses, labels, CLASSES, model.named_parameters())


def of_cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Class gradients of the mean cross entropy, by their definition."""
    return by_loss(model, F.cross_entropy(model(x), y, reduction="none") / len(y), y)


def assert_read(
    trace: imbdyn.Trace, gradients: dict[str, Tensor], *, step: int = 1, tolerance: float = 1e-5, cosines: bool = True
) -> None:
    """Compare every covered parameter's norms and cosines of class gradients; tolerance of the largest class's norm."""
    read = trace.class_gradients
    read = read[read.step == step].set_index(["parameter", "class_id"])
    pairs = trace.class_gradient_pairs
    pairs = pairs[pairs.step == step].set_index(["parameter", "class_a", "class_b"])
    classes = sorted({c for _, c in read.index})
    for name, gradient in gradients.items():
        g = gradient.flatten(1).double()
        norm, largest = g.norm(dim=1), float(g.norm(dim=1).max())
        for c in classes:
            assert read.loc[(name, c)].grad_norm == pytest.approx(float(norm[c]), abs=tolerance * largest), (name, c)
            for b in classes:
                if not cosines or c >= b or min(norm[c], norm[b]) < 1e-3 * largest:
                    continue
                expected = float(g[c] @ g[b] / norm[c] / norm[b])
                # a cosine of small gradients has their relative error
                bound = tolerance * largest / float(min(norm[c], norm[b])) * 2
                assert pairs.loc[(name, c, b)].grad_cos == pytest.approx(expected, abs=bound), (name, c, b)


def assert_same_class_gradients(a: imbdyn.Trace, b: imbdyn.Trace, *, rtol: float) -> None:
    """Compare the norms that two trainings have left; small ones against the largest of their parameter and step."""
    key = ["step", "parameter", "class_id"]
    both = a.class_gradients.merge(b.class_gradients, on=key, how="outer", validate="one_to_one")
    assert both.grad_norm_x.notna().all()
    assert both.grad_norm_y.notna().all()
    largest = both.groupby(["step", "parameter"]).grad_norm_x.transform("max")
    difference = np.abs(both.grad_norm_x - both.grad_norm_y) / largest
    worst = both.loc[difference.idxmax()]
    assert (difference <= rtol).all(), f"{difference.max():.1e} in {worst.to_dict()}"


def assert_exact(trace: imbdyn.Trace, *, residual: float = 1e-5) -> None:
    """Every parameter of every sampled step is covered, and sums to its gradient."""
    assert trace.run["problems"] == {}
    assert trace.run["coverage"]["share"] == 1.0
    assert len(trace.parameters) > 0
    assert trace.parameters.residual.notna().all()
    assert trace.parameters.residual.max() <= residual


def one_step(
    model: nn.Module,
    labels: Tensor,
    backward: Callable[[], Any],
    out: Any,
    *,
    steps: int = 3,
    optimizer: torch.optim.Optimizer | None = None,
    **options: Any,
) -> imbdyn.Trace:
    """Run `backward` in the batch of each of a few steps that move nothing, so that all read the same."""
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.0)
    with imbdyn.Monitor(model, optimizer, CLASSES, out, interval=1, **options) as monitor:
        for _ in range(steps):
            with monitor.batch(labels):
                backward()
            optimizer.step()
            optimizer.zero_grad()
    return imbdyn.open_trace(out)
