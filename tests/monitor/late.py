"""Stands for a GPU on the CPU: what is sent comes when the test says so, and nobody looks at a tensor before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from loops import CLASSES
from numpy.typing import NDArray
from torch import Tensor, nn

from imbdyn import Monitor, Trace, open_trace


class Late:
    """Numbers as they were when they were sent, which come when `ready` says so, or when somebody waits for them."""

    def __init__(self, tensors: Sequence[Tensor], ready: Callable[[], bool]) -> None:
        self._numbers = [t.detach().double().clone().numpy() for t in tensors]
        self._ready = ready
        self.waited_for = False

    def has_come(self) -> bool:
        return self.waited_for or self._ready()

    def numbers(self) -> list[NDArray[np.float64]]:
        self.waited_for |= not self._ready()
        return self._numbers


class Device:
    """Sends numbers like a GPU does.

    Attributes:
        queries: how often it is asked whether numbers have come before they have; None: they never come by themselves.
    """

    def __init__(self, queries: int | None) -> None:
        self.queries = queries
        self.sent: list[Late] = []

    def send(self, tensors: Sequence[Tensor]) -> Late:
        left = self.queries

        def ready() -> bool:
            nonlocal left
            if left is None:
                return False
            left -= 1
            return left < 0

        self.sent.append(Late(tensors, ready))
        return self.sent[-1]


class Training:
    """Steps of a network, each with a label of its own count, so that a row shows whose it is."""

    def __init__(self, out: Path, **options: Any) -> None:
        torch.manual_seed(0)
        self.out = out
        self.model = nn.Linear(4, CLASSES)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.monitor = Monitor(self.model, self.optimizer, CLASSES, out, **{"interval": 1, **options})
        self.steps = 0

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.steps += 1
            n = 10 + self.steps
            with self.monitor.batch(torch.arange(n) % CLASSES):
                F.cross_entropy(self.model(torch.randn(n, 4)), torch.arange(n) % CLASSES).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()

    def trace(self) -> Trace:
        return open_trace(self.out)

    def written(self) -> list[int]:
        steps = sorted(self.trace().steps.step)
        assert sorted(set(self.trace().parameters.step)) == steps
        assert sorted(set(self.trace().class_gradients.step)) == steps
        return [int(step) for step in steps]
