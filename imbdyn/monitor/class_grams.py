"""The Gram matrices of a step's class gradients, on their way to the host and there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ClassGrams:
    """The class gradients of one step, of the K classes that are present and the P parameters that are covered."""

    parameters: list[str]
    class_ids: NDArray[np.int64]
    """[K], ascending."""
    count: Floats
    """[K], samples of the step's batches that were read."""
    gram: Floats
    """[P, G, G]: G = K, or K + 1 where samples count nowhere, the last group."""
    sample_norm_sq: Floats
    """[P, G]; NaN where the samples' own gradients were not made."""

    def times(self, scale: float) -> ClassGrams:
        """Return the Gram matrices of `scale` times these class gradients."""
        return replace(self, gram=self.gram * scale**2, sample_norm_sq=self.sample_norm_sq * scale**2)

    def of_classes(self) -> ClassGrams:
        """Return the same without the samples that count nowhere."""
        k = len(self.class_ids)
        return replace(self, gram=self.gram[:, :k, :k], sample_norm_sq=self.sample_norm_sq[:, :k])


@dataclass(frozen=True)
class GramsToCome:
    """The same where it was made, with as many groups as there is room for."""

    parameters: list[str]
    num_classes: int
    """C."""
    ids: Tensor
    """int64 [G], as in `Classes`: classes, C for samples that count nowhere, C + 1 for a group that is left over."""
    count: Tensor
    """[G]."""
    gram: Tensor
    """[P, G, G]."""
    sample_norm_sq: Tensor
    """[P, G]."""

    def tensors(self) -> list[Tensor]:
        """Return what is to be sent to the host."""
        return [self.ids, self.count, self.gram, self.sample_norm_sq]

    def come(self, numbers: list[Floats]) -> ClassGrams:
        """Return the class gradients from what was sent."""
        ids, count, gram, sample_norm_sq = numbers
        groups, classes = int((ids <= self.num_classes).sum()), int((ids < self.num_classes).sum())
        return ClassGrams(
            self.parameters,
            ids[:classes].astype(np.int64),
            count[:classes].astype(np.float64),
            gram[:, :groups, :groups],
            sample_norm_sq[:, :groups],
        )
