"""The network of the built-in experiment."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SmallConvNet(nn.Module):
    """Two 3x3 convolutions with pooling and two linear layers, for images [N, 1, 8, 8].

    No BatchNorm: it would mix the classes of a batch, and a class's part of the gradient would not be the gradient of
    its loss.
    """

    def __init__(self, num_classes: int, channels: int, hidden: int) -> None:
        """Make a network with `channels` and `2 * channels` filters and `hidden` features before the classifier."""
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.hidden = nn.Linear(2 * channels * 2 * 2, hidden)
        self.classifier = nn.Linear(hidden, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [N, num_classes]."""
        maps = F.max_pool2d(F.relu(self.conv1(images)), 2)
        maps = F.max_pool2d(F.relu(self.conv2(maps)), 2)
        logits: Tensor = self.classifier(F.relu(self.hidden(torch.flatten(maps, 1))))
        return logits
