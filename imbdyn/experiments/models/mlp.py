"""A multilayer perceptron, for inputs of any shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from torch import nn

from imbdyn.experiments.errors import require
from imbdyn.experiments.models.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class MlpSpec(ModelSpec):
    """`mlp`: `depth` hidden layers of `hidden` ReLUs."""

    name: str = "mlp"
    hidden: int = 64
    depth: int = 2

    def __post_init__(self) -> None:
        require(self.hidden >= 1, "model.hidden must be at least 1", self.hidden)
        require(self.depth >= 0, "model.depth must be at least 0", self.depth)

    def build(self, shape: Sequence[int], num_classes: int) -> nn.Sequential:
        """Make it."""
        widths = [prod(shape), *[self.hidden] * self.depth]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(widths[-1], num_classes))
