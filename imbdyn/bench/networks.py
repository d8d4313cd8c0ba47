"""The networks whose training steps are measured, and their batches: all benchmarks speak of the same cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imbdyn.experiments.models import SmallConvNet
from imbdyn.experiments.models.cifar_resnet import CifarResNet


class Case(NamedTuple):
    """A network, its number of classes and its batch."""

    make: Callable[[], nn.Module]
    classes: int
    shape: tuple[int, ...]
    """Of the batch [N, ...]."""
    vocabulary: int | None = None
    """Inputs are token ids below it; None: they are numbers."""

    def model(self) -> nn.Module:
        """Return the network in training mode, the same in every call."""
        torch.manual_seed(0)
        return self.make().train()

    def batch(self, samples: int | None = None) -> tuple[Tensor, Tensor]:
        """Return inputs and labels int64 [N], the same in every call; only the first `samples`, if given."""
        generator = torch.Generator().manual_seed(1)
        labels = torch.randint(0, self.classes, self.shape[:1], generator=generator)
        if self.vocabulary is None:
            inputs = torch.randn(self.shape, generator=generator)
        else:
            inputs = torch.randint(0, self.vocabulary, self.shape, generator=generator)
        return inputs[:samples], labels[:samples]


def mlp(hidden: int, depth: int, classes: int = 10) -> nn.Module:
    """Return an MLP for 784 inputs with `depth` hidden layers."""
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(784, hidden), nn.ReLU()]
    for _ in range(depth - 1):
        layers += [nn.Linear(hidden, hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, classes))


def cnn(*channels: int, classes: int = 10) -> nn.Module:
    """Return 3x3 convolutions on images [N, 3, H, W], max pooling after each, and a classifier on the mean."""
    layers: list[nn.Module] = []
    for before, after in zip((3, *channels[:-1]), channels, strict=True):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], classes))


class TransformerBlock(nn.Module):
    """Self-attention and an MLP of four times the width, LayerNorm before each."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp1 = nn.Linear(width, 4 * width)
        self.mlp2 = nn.Linear(4 * width, width)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens [N, T, width] of tokens [N, T, width]."""
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        tokens: Tensor = x + self.mlp2(F.gelu(self.mlp1(self.norm2(x))))
        return tokens


class Transformer(nn.Module):
    """A pre-norm encoder over token ids [N, T] that classifies by the mean token."""

    def __init__(self, width: int, depth: int, heads: int, tokens: int, vocabulary: int, classes: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(tokens, width)
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits [N, classes] of token ids [N, T]."""
        # One position a token and sample: per-sample gradients of the peers need the batch in every module's input.
        positions = torch.arange(ids.shape[1]).repeat(len(ids), 1)
        logits: Tensor = self.head(self.norm(self.blocks(self.words(ids) + self.positions(positions))).mean(1))
        return logits


#: The cases whose cost is promised.
CASES: dict[str, Case] = {
    "MLP 784-512x4-10, N 128": Case(lambda: mlp(512, 4), 10, (128, 784)),
    "MLP 784-1024x4-100, N 256": Case(lambda: mlp(1024, 4, 100), 100, (256, 784)),
    "CNN 32-64-128, N 128, C 10": Case(lambda: cnn(32, 64, 128), 10, (128, 3, 32, 32)),
    "ResNet-32, N 128, C 10": Case(lambda: CifarResNet(10, blocks=5), 10, (128, 3, 32, 32)),
    "ResNet-32, N 128, C 100": Case(lambda: CifarResNet(100, blocks=5), 100, (128, 3, 32, 32)),
    "transformer 4x256, N 32, T 128": Case(lambda: Transformer(256, 4, 8, 128, 1000, 10), 10, (32, 128), 1000),
}

#: Networks so small that one Python call shows.
TINY: dict[str, Case] = {
    "MLP 784-64-10, N 64": Case(lambda: mlp(64, 1), 10, (64, 784)),
    "digits CNN, N 64": Case(lambda: SmallConvNet(10, channels=16, hidden=64), 10, (64, 1, 8, 8)),
}
