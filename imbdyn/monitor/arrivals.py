"""Numbers on their way from a device to the host, which need not wait for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Arrival(Protocol):
    """What `send` has sent."""

    def has_come(self) -> bool:
        """Whether `numbers` would not wait."""

    def numbers(self) -> list[NDArray[np.float64]]:
        """Return the numbers in the shapes of the tensors, waiting for them if they have not come."""


def may_look(t: Tensor) -> bool:
    """Whether the host may look at a tensor now: at one of its own, while others would have to be waited for."""
    return t.is_cpu


def send(tensors: Sequence[Tensor]) -> Arrival:
    """Begin to copy tensors to the host; nothing waits where they are on a GPU.

    From a GPU all numbers come as float64 (class ids and counts stay exact up to 2^53), in one copy on its current
    stream. CPU tensors have come at once, and their numbers are views of them, to be used before they change.
    """
    if all(t.is_cpu for t in tensors):
        return _Here(tensors)
    with torch.no_grad(), torch._C.DisableTorchFunction(), torch._C._DisableAutocast():
        return _Underway(tensors)


class _Here:
    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tensors

    def has_come(self) -> bool:
        return True

    def numbers(self) -> list[NDArray[np.float64]]:
        return [t.detach().numpy() for t in self._tensors]


class _Underway:
    """Pinned buffers that are being filled, each with the event that tells when it is.

    torch keeps pinned memory that is free for the next step, so no buffer is made anew; it is free when nobody holds
    the numbers any more.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._shapes = [t.shape for t in tensors]
        self._copies: list[tuple[list[int], Tensor, torch.cuda.Event | None]] = []
        by_device: dict[torch.device, list[int]] = defaultdict(list)
        for i, t in enumerate(tensors):
            by_device[t.device].append(i)
        for device, members in by_device.items():
            flat = torch.cat([tensors[i].detach().reshape(-1).double() for i in members])
            if device.type != "cuda":  # the host, or a device whose copies torch cannot wait for later
                self._copies.append((members, flat.cpu(), None))
                continue
            buffer = torch.empty(flat.shape, dtype=torch.float64, device="cpu", pin_memory=True)
            buffer.copy_(flat, non_blocking=True)
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(device))
            self._copies.append((members, buffer, event))

    def has_come(self) -> bool:
        return all(event is None or event.query() for _, _, event in self._copies)

    def numbers(self) -> list[NDArray[np.float64]]:
        found: dict[int, NDArray[np.float64]] = {}
        for members, buffer, event in self._copies:
            if event is not None:
                event.synchronize()
            sizes = [self._shapes[i].numel() for i in members]
            for i, part in zip(members, buffer.split(sizes), strict=True):
                found[i] = part.view(self._shapes[i]).numpy()
        return [found[i] for i in range(len(self._shapes))]
