"""From the labels of a step's batches to the classes that are present, numbered from 0."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from imbdyn.monitor import arrivals


@dataclass(frozen=True)
class Classes:
    """The classes of the batches that are read together, and where their samples belong.

    On the CPU there are as many groups as occur. On a GPU nobody waits to count them: there are as many as may occur,
    min(samples, C + 1), and what is left over is empty. (Labels that are soft wait: how many classes share a sample is
    the size of what is made of them.)
    """

    ids: Tensor
    """int64 [G], ascending: classes, then C where samples count nowhere, then C + 1 where a group is left over."""
    count: Tensor
    """[G], samples; of soft labels, those in which the class has a weight."""
    groups: int
    """G. Samples that count nowhere are a group of their own, since gradient may flow there."""
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
        slots = [slots_of(label, num_classes, ignore_index) for label in labels]
        together = torch.cat(slots)
        soft = any(label.is_floating_point() for label in labels)
        if soft or arrivals.may_look(together):
            ids, index, count = torch.unique(together, return_inverse=True, return_counts=True)
        else:
            ids, index, count = number_without_waiting(together, num_classes)
        group_of = index.split([len(slot) for slot in slots])
        if soft:
            classes = len(ids) - int(len(ids) and ids[-1] == num_classes)
            present = ids[:classes]
            group_of = tuple(
                torch.nn.functional.pad(label[:, present], (0, len(ids) - classes))
                if label.is_floating_point()
                else group
                for label, group in zip(labels, group_of, strict=True)
            )
        return cls(ids, count, len(ids), tuple(group_of))


def number_without_waiting(slots: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids [G], the group of each slot [N], and counts [G], G = min(N, C + 1); see `Classes`.

    Args:
        slots: int64 [N] in 0..C.
        num_classes: C.
    """
    every = torch.arange(num_classes + 2, device=slots.device)
    # all that are equal lie between two edges: no atomics, so that it is repeatable
    count = torch.searchsorted(slots.sort().values, every).diff()
    present = count > 0
    ids = torch.where(present, every[:-1], num_classes + 1).sort().values[: min(len(slots), num_classes + 1)]
    return ids, (present.cumsum(0) - 1)[slots], torch.nn.functional.pad(count, (0, 1))[ids]


def spread(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pairs of a sample and a class that soft labels [N, K] make: sample, class and weight, each [M]."""
    sample, group = labels.nonzero(as_tuple=True)
    return sample, group, labels[sample, group]


def slots_of(labels: Tensor, num_classes: int, ignore_index: int) -> Tensor:
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
