"""Small networks of the functions that have a rule."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Mlp(nn.Module):
    def __init__(self, features: int = 12, hidden: int = 16, classes: int = 5) -> None:
        super().__init__()
        self.first = nn.Linear(features, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(x.flatten(1)), inplace=True)
        return self.head(torch.tanh(self.second(x)))


class Cnn(nn.Module):
    """Convolutions with stride, dilation and both kinds of padding, then a classifier."""

    def __init__(self, channels: int = 2, classes: int = 5) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 7, (3, 2), stride=(2, 1), padding="valid", bias=False)
        self.third = nn.Conv2d(7, 8, 2, dilation=2, padding="same")
        self.head = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(x), inplace=True)
        x = torch.tanh(self.second(x))
        return self.head(F.relu(self.third(x)).mean((2, 3)))
