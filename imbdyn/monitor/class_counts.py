"""How many samples of each class were trained on."""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from torch import Tensor

from imbdyn.monitor import arrivals
from imbdyn.monitor.arrivals import Arrival
from imbdyn.monitor.classes import slots_of


class ClassCounts:
    """Counts labels, now and then and all at once: a call a batch would be dear.

    Args:
        num_classes: C.
        ignore_index: label of samples that count nowhere, as labels out of range do.
    """

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        self._num_classes = num_classes
        self._ignore_index = ignore_index
        self._counts = np.zeros(num_classes, dtype=np.int64)
        self._uncounted: list[Tensor] = []
        self._underway: deque[Arrival] = deque()

    def add(self, labels: Tensor) -> None:
        """Take labels [N], which are the caller's to change."""
        self._uncounted.append(labels.clone())

    def start_from(self, counts: list[int]) -> None:
        """Count on from these."""
        self._counts = np.asarray(counts, dtype=np.int64)

    def known(self, *, wait: bool) -> list[int]:
        """Return the counts [C]; those of labels on a GPU come later, unless the host is to wait for them."""
        by_device: dict[torch.device, list[Tensor]] = {}
        for labels in self._uncounted:
            by_device.setdefault(labels.device, []).append(labels)
        self._uncounted = []
        for of_device in by_device.values():
            self._underway.append(arrivals.send([self._count(torch.cat(of_device))]))
        while self._underway and (wait or self._underway[0].has_come()):
            (counts,) = self._underway[0].numbers()
            self._counts += counts.astype(np.int64)
            self._underway.popleft()
        return [int(count) for count in self._counts]

    def _count(self, labels: Tensor) -> Tensor:
        slots = slots_of(labels, self._num_classes, self._ignore_index)
        if arrivals.may_look(slots):
            return slots.bincount(minlength=self._num_classes + 1)[: self._num_classes]
        edges = torch.arange(self._num_classes + 1, device=slots.device)
        return torch.searchsorted(slots.sort().values, edges).diff()  # bincount would wait
