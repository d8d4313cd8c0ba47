"""Copies of the weights before an optimizer step, to measure by how much it moves them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class WeightsBefore:
    """Keeps its memory from one sampled step to the next: fresh pages would cost more than the copying itself."""

    def __init__(self) -> None:
        self._copies: list[Tensor] = []

    def copy(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """Return copies of `weights`, valid until the next call."""
        if [_kind(copy) for copy in self._copies] != [_kind(weight) for weight in weights]:
            self._copies = [torch.empty_like(weight) for weight in weights]
        if weights:
            torch._foreach_copy_(self._copies, list(weights))
        return self._copies


def _kind(t: Tensor) -> tuple[torch.Size, tuple[int, ...], torch.dtype, torch.device]:
    return t.shape, t.stride(), t.dtype, t.device
