"""Sums of the logits over a window of optimizer steps, or over an evaluation."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imbdyn.ops import ClassLogits, add_class_logits


class LogitSums:
    """Adds up the logits of batches on their device; the host is asked once, by `take`."""

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        self._num_classes = num_classes
        self._ignore_index = ignore_index
        self._sums: Tensor | None = None
        self._put_back: NDArray[np.float64] | None = None

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Read the logits [N, C] of one batch."""
        if self._sums is None:
            self._sums = torch.zeros(
                (len(ClassLogits._fields), self._num_classes), dtype=torch.float64, device=logits.device
            )
        add_class_logits(self._sums, logits, labels, ignore_index=self._ignore_index)

    def take(self) -> NDArray[np.float64]:
        """Return the sums [8, C], rows as in `ClassLogits`, and start anew; zeros if nothing was added."""
        sums, self._sums = self._sums, None
        before, self._put_back = self._put_back, None
        taken = np.zeros((len(ClassLogits._fields), self._num_classes)) if sums is None else sums.cpu().numpy()
        return taken if before is None else taken + before

    def put_back(self, sums: NDArray[np.float64]) -> None:
        """Take back what `take` has returned, since it could not be used."""
        self._put_back = sums
