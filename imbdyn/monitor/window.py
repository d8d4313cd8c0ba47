"""Sums of the logits over a window of optimizer steps, or over an evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imbdyn.monitor.streams import Streams
from imbdyn.ops import ClassLogits, add_class_logits

Floats = NDArray[np.float64]


class LogitSums:
    """Adds up the logits of batches on their device."""

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        self._num_classes = num_classes
        self._ignore_index = ignore_index
        self._sums: Tensor | None = None
        self._put_back: Floats | None = None
        self._streams = Streams()

    def follow(self, logits: Tensor) -> None:
        """Take note of the stream on which logits were made, to be added on another one."""
        self._streams.follow(logits)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Read the logits [N, C] of one batch."""
        self._streams.follow(logits)
        if self._sums is None:
            self._sums = torch.zeros(
                (len(ClassLogits._fields), self._num_classes), dtype=torch.float64, device=logits.device
            )
        add_class_logits(self._sums, logits, labels, ignore_index=self._ignore_index)

    def take(self) -> tuple[Tensor, Floats | None]:
        """Return the sums [8, C], rows as in `ClassLogits`, with what was put back, and start anew."""
        sums, self._sums = self._sums, None
        before, self._put_back = self._put_back, None
        if sums is None:
            sums = torch.zeros(len(ClassLogits._fields), self._num_classes, dtype=torch.float64, device="cpu")
        self._streams.follow(sums)
        return sums, before

    def put_back(self, sums: Floats | None) -> None:
        """Take back what `take` has returned, since it could not be used."""
        self._put_back = added(self._put_back, sums)


@dataclass(eq=False)
class Window:
    """The steps after `since` whose logits are on their way to the trace."""

    since: int
    sums: Tensor
    """[8, C], where they were added up."""
    before: Floats | None
    """Sums of the steps of an earlier window, which could not be written."""


def added(a: Floats | None, b: Floats | None) -> Floats | None:
    """Return the sum of what is there."""
    if a is None or b is None:
        return a if b is None else b
    return a + b
