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
    """[K], samples; of soft labels, those in which the class has a weight."""
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
        labels = [_of_one_class(label) for label in labels]
        slots = [_slots(label, num_classes, ignore_index) for label in labels]
        groups, index, count = torch.unique(torch.cat(slots), return_inverse=True, return_counts=True)
        group_of = index.split([len(slot) for slot in slots])
        ids = groups.cpu().numpy()
        classes = len(ids) - bool(len(ids) and ids[-1] == num_classes)
        present = groups[:classes]
        return cls(
            ids[:classes],
            count[:classes].double().cpu().numpy(),
            len(ids),
            tuple(
                torch.nn.functional.pad(label[:, present], (0, len(ids) - classes))
                if label.is_floating_point()
                else group
                for label, group in zip(labels, group_of, strict=True)
            ),
        )


def spread(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pairs of a sample and a class that soft labels [N, K] make: sample, class and weight, each [M]."""
    sample, group = labels.nonzero(as_tuple=True)
    return sample, group, labels[sample, group]


def _slots(labels: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Return the class of each sample, C for those that count nowhere; of soft labels, of each pair as in `spread`."""
    if labels.is_floating_point():
        return labels.nonzero()[:, 1]
    counts = (labels >= 0) & (labels < num_classes)
    if ignore_index >= 0:
        counts &= labels != ignore_index
    return torch.where(counts, labels, num_classes)


def _of_one_class(labels: Tensor) -> Tensor:
    """Return soft labels in which every sample has one class as int64 [N], all others as they are."""
    one_hot = labels.is_floating_point() and bool(((labels != 0).sum(1) == 1).all())
    return labels.argmax(1) if one_hot else labels
