"""LeNet-5 (LeCun et al. 1998) as it is used today: ReLU, max pooling, a linear classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from imbdyn.experiments.models.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class LeNetSpec(ModelSpec):
    """`lenet`: 6 and 16 filters of 5x5, 120 and 84 hidden units; the first convolution pads by 2, for 28x28 pixels."""

    name: str = "lenet"

    def build(self, shape: Sequence[int], num_classes: int) -> nn.Sequential:
        """Make it."""
        channels, height, width = self.images(shape, at_least=12)
        flat = 16 * ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2)
        return nn.Sequential(
            *(nn.Conv2d(channels, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(flat, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()),
            nn.Linear(84, num_classes),
        )
