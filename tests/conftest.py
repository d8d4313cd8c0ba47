"""Shared by all tests: small networks and a loop that runs with or without a Monitor."""

from __future__ import annotations

import pytest
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


@pytest.fixture(params=["mlp", "cnn"])
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return Mlp(features=2 * 6 * 6) if request.param == "mlp" else Cnn()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(24, 2, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def labels() -> torch.Tensor:
    """24 labels of 5 classes, of which class 3 is absent and class 4 has a single sample."""
    return torch.tensor([0] * 12 + [1] * 7 + [2] * 4 + [4])[torch.randperm(24, generator=torch.Generator().manual_seed(2))]
