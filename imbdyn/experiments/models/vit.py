"""A small vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929), pre-norm, without dropout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imbdyn.experiments.errors import require
from imbdyn.experiments.models.spec import ModelSpec


class EncoderBlock(nn.Module):
    """Self-attention and an MLP of four times the width, LayerNorm before each."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp1 = nn.Linear(width, 4 * width)
        self.mlp2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens [N, T, width]."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        transformed: Tensor = x + self.mlp2(F.gelu(self.mlp1(self.norm2(x))))
        return transformed


class Vit(nn.Module):
    """Patches become tokens with learned positions; the class token's output is classified."""

    def __init__(self, num_classes: int, shape: Sequence[int], patch: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        channels, height, columns = shape
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, 1 + (height // patch) * (columns // patch), width))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [N, num_classes]."""
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), tokens], dim=1) + self.positions
        logits: Tensor = self.classifier(self.norm(self.blocks(tokens)[:, 0]))
        return logits


@dataclass(frozen=True, kw_only=True)
class VitSpec(ModelSpec):
    """`vit`: Vit."""

    name: str = "vit"
    patch: int = 4
    """Side of a patch in pixels; what is left over at the edges is not seen."""
    width: int = 64
    depth: int = 4
    heads: int = 4

    def __post_init__(self) -> None:
        for key in ("patch", "width", "depth", "heads"):
            require(getattr(self, key) >= 1, f"model.{key} must be at least 1", getattr(self, key))
        require(self.width % self.heads == 0, f"model.width must be a multiple of its {self.heads} heads", self.width)

    def build(self, shape: Sequence[int], num_classes: int) -> Vit:
        """Make it."""
        images = self.images(shape, at_least=self.patch)
        return Vit(num_classes, images, self.patch, self.width, self.depth, self.heads)
