"""The network of the built-in experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imbdyn.experiments.errors import require
from imbdyn.experiments.models.spec import ModelSpec


class SmallConvNet(nn.Module):
    """Two 3x3 convolutions with pooling and two linear layers, for images [N, C, H, W] of at least 4x4 pixels.

    No BatchNorm: it would mix the classes of a batch, and a class's part of the gradient would not be the gradient of
    its loss.
    """

    def __init__(self, num_classes: int, channels: int, hidden: int, shape: Sequence[int] = (1, 8, 8)) -> None:
        """Make a network with `channels` and `2 * channels` filters and `hidden` features before the classifier."""
        super().__init__()
        inputs, height, width = shape
        self.conv1 = nn.Conv2d(inputs, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.hidden = nn.Linear(2 * channels * (height // 4) * (width // 4), hidden)
        self.classifier = nn.Linear(hidden, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [N, num_classes]."""
        maps = F.max_pool2d(F.relu(self.conv1(images)), 2)
        maps = F.max_pool2d(F.relu(self.conv2(maps)), 2)
        logits: Tensor = self.classifier(F.relu(self.hidden(torch.flatten(maps, 1))))
        return logits


@dataclass(frozen=True, kw_only=True)
class SmallConvNetSpec(ModelSpec):
    """`small_conv_net`: SmallConvNet."""

    name: str = "small_conv_net"
    channels: int = 16
    hidden: int = 64

    def __post_init__(self) -> None:
        require(self.channels >= 1, "model.channels must be at least 1", self.channels)
        require(self.hidden >= 1, "model.hidden must be at least 1", self.hidden)

    def build(self, shape: Sequence[int], num_classes: int) -> SmallConvNet:
        """Make it."""
        return SmallConvNet(num_classes, self.channels, self.hidden, self.images(shape, at_least=4))
