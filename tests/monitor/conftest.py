"""A device whose numbers come late, and batches of images."""

from __future__ import annotations

import pytest
import torch
from late import Device
from loops import CLASSES
from torch import Tensor

from imbdyn.monitor import arrivals


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device(None)
    monkeypatch.setattr(arrivals, "send", device.send)
    monkeypatch.setattr(arrivals, "may_look", lambda _: False)
    return device


@pytest.fixture
def batches() -> list[tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(1)
    return [
        (torch.randn(24, 2, 6, 6, generator=random), torch.randint(0, CLASSES - i % 2, (24,), generator=random))
        for i in range(10)
    ]
