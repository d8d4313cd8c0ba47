"""A training loop with and without a Monitor, for tests of what a user's loop sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import imbdyn

CLASSES = 5
Criterion = Callable[[Tensor, Tensor], Tensor]
Batches = list[tuple[Tensor, Tensor]]


def train(
    model: nn.Module,
    batches: Batches,
    *,
    criterion: Criterion = F.cross_entropy,
    micro_batches: int = 1,
    clip: float | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    monitor: imbdyn.Monitor | None = None,
) -> None:
    """Train on the batches in turn, under the monitor if there is one."""
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for i, (x, y) in enumerate(batches):
        if monitor is None:
            criterion(model(x), y).backward()
        else:
            with monitor.batch(y):
                criterion(model(x), y).backward()
        if (i + 1) % micro_batches == 0:
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()


def monitored(
    model: nn.Module, batches: Batches, out: Path, *, interval: int | None = 1, **options: Any
) -> imbdyn.Trace:
    """Train under a Monitor that samples every step; return its trace. Options are those of `train`."""
    optimizer = options.pop("optimizer", None) or torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    ignore_index = options.pop("ignore_index", -100)
    with imbdyn.Monitor(model, optimizer, CLASSES, out, interval=interval, ignore_index=ignore_index) as monitor:
        train(model, batches, optimizer=optimizer, monitor=monitor, **options)
    return imbdyn.open_trace(out)
