"""From the labels of a step's batches to the classes that are present, numbered from 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Classes:
    """The K classes of the batches that are read together, and where their samples belong."""

    ids: NDArray[np.int64]
    """[K], ascending."""
    count: NDArray[np.float64]
    """[K], samples; of soft labels, the sum of their weights."""
    groups: int
    """K, or K + 1 where samples count nowhere: their rows are a group of their own, since gradient may flow there."""
    labels: tuple[Tensor, ...]
    """Of each batch: int64 [N] in 0..groups-1, or soft, float [N, groups]."""

    @classmethod
    def of(cls, labels: list[Tensor], num_classes: int, ignore_index: int) -> Classes:
        """Number the classes that are present.

        Args:
            labels: of each batch, int64 [N] or float [N, C]. A label out of range counts nowhere.
            num_classes: C.
            ignore_index: label of samples that count nowhere.
        """
        weight = sum(_weights(label, num_classes, ignore_index) for label in labels)
        assert isinstance(weight, Tensor)
        present = weight[:num_classes].nonzero()[:, 0]
        ignored = bool(weight[num_classes] > 0)
        index = present.new_full((num_classes + 1,), len(present))
        index[present] = torch.arange(len(present), device=present.device)
        return cls(
            present.cpu().numpy(),
            weight[present].cpu().numpy(),
            len(present) + ignored,
            tuple(
                label[:, present] if label.is_floating_point() else index[_slot(label, num_classes, ignore_index)]
                for label in labels
            ),
        )


def spread(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pairs of a sample and a class that soft labels [N, K] make: sample, class and weight, each [M]."""
    sample, group = labels.nonzero(as_tuple=True)
    return sample, group, labels[sample, group]


def _slot(labels: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Return the labels, and C for those that count nowhere."""
    counts = (labels != ignore_index) & (labels >= 0) & (labels < num_classes)
    return torch.where(counts, labels, num_classes)


def _weights(labels: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Return the samples of each class, and of none, as float64 [C + 1]."""
    if labels.is_floating_point():
        return torch.nn.functional.pad(labels.double().sum(0), (0, 1))
    return _slot(labels, num_classes, ignore_index).bincount(minlength=num_classes + 1).double()
