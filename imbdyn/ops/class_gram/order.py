"""Samples in the order of their classes, and their division into chunks: made on the device, read by nobody here.

All layers of a step have one label tensor: what follows from it is kept for the next call (`class_order`). Sizes are
bounds that shapes give, because what is there is known to the device only.
"""

from __future__ import annotations

import weakref
from collections import deque
from dataclasses import dataclass, field

import torch
from torch import Tensor

from imbdyn.ops._triton import current_stream

#: Label tensors whose order is kept.
_KEPT = 4


@dataclass(frozen=True)
class Chunks:
    """Parts of classes, each of about equally many samples in class order; class by class, slots behind them empty."""

    begin: Tensor
    """int32 [slots]: place of the first sample; of an empty slot that of its end."""
    end: Tensor
    """int32 [slots]."""
    label: Tensor
    """int32 [slots]: class, 0 in an empty slot."""
    rank: Tensor
    """int32 [slots]: rank of the class."""
    number: Tensor
    """int32 [slots]: 0, 1, 2, ..."""
    used: Tensor
    """int32 [1]: how many slots are not empty."""


@dataclass
class ClassOrder:
    """S samples by class, those that count nowhere last."""

    samples: Tensor
    """int32 [S]: the samples in class order, those of a class as they came."""
    labels: Tensor
    """int32 [S]: their classes, num_classes where they count nowhere."""
    rank: Tensor
    """int32 [S]: how many other classes are present before theirs."""
    label_of_rank: Tensor
    """int32 [S]: class of each rank; num_classes where there is no such rank, and for what counts nowhere."""
    start: Tensor
    """int64 [C + 1]: place of each class's first sample; the last is the number of samples that count."""
    unit: Tensor | None = None
    """int32 [S], where the rows of a sample are several "samples" here: number of each one's sample, ascending."""
    counted: Tensor = field(init=False)
    """int64 [1]: how many samples count."""
    present: Tensor = field(init=False)
    """int32 [1]: how many classes are present."""
    classes: int = field(init=False)
    """C."""
    unit_or_samples: Tensor = field(init=False)
    """`unit` where it is there, else `samples`: kernels want a tensor."""
    _rows: dict[tuple[int, ...], Tensor] = field(default_factory=dict)
    _chunks: dict[int, Chunks] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.counted = self.start[-1:].clone()  # where Triton likes it: at a multiple of 16 bytes
        self.classes = len(self.start) - 1
        self.unit_or_samples = self.samples if self.unit is None else self.unit
        self.present = (self.start.diff() > 0).sum(0, keepdim=True, dtype=torch.int32)

    def index(self, offsets: tuple[int, int, int] | None) -> Tensor:
        """Return the samples in class order, or the `offsets` of their rows."""
        return self.samples if offsets is None else self.offsets(*offsets)

    def offsets(self, sample_stride: int, row_stride: int, per_sample: int) -> Tensor:
        """Return sample * sample_stride + row * row_stride of each row in class order, [S * per_sample]."""
        key = (sample_stride, row_stride, per_sample)
        if key not in self._rows:
            row = torch.arange(per_sample, device=self.samples.device) * row_stride
            offset = self.samples[:, None].long() * sample_stride + row
            small = (len(self.samples) - 1) * sample_stride + (per_sample - 1) * row_stride < 2**31
            self._rows[key] = offset.flatten().int() if small else offset.flatten()
        return self._rows[key]

    def chunks(self, size: int) -> Chunks:
        """Return each class's samples in as few chunks as hold at most `size` of them, of about equal size."""
        if size not in self._chunks:
            self._chunks[size] = self._make_chunks(size)
        return self._chunks[size]

    def _make_chunks(self, size: int) -> Chunks:
        slot = torch.arange(slots_of(len(self.samples), self.classes, size), device=self.start.device)
        first, count = self.start[:-1], self.start.diff()
        parts = (count + size - 1) // size
        behind = parts.cumsum(0)
        label = torch.searchsorted(behind, slot, right=True)
        used = behind[-1:]
        label = torch.where(slot < used, label, 0)
        part = slot - (behind - parts)[label]
        of, counted = parts[label].clamp(min=1), count[label]
        begin = first[label] + part * counted // of
        end = torch.where(slot < used, first[label] + (part + 1) * counted // of, begin)
        rank = self.rank[begin.clamp(max=len(self.rank) - 1)]
        return Chunks(begin.int(), end.int(), label.int(), rank, slot.int(), used.int())


def slots_of(samples: int, classes: int, size: int) -> int:
    """Return how many slots chunks of at most `size` samples may need, whatever the classes are."""
    return min(samples, -(-samples // size) + min(samples, classes) - 1) if samples else 0


def make_order(labels: Tensor, num_classes: int, ignore_index: int, samples: Tensor | None = None) -> ClassOrder:
    """Return the order of labels [S]; where `samples` are given, within a class by them, and their units.

    A label that is neither a class nor `ignore_index` counts nowhere either.
    """
    counted = (labels >= 0) & (labels < num_classes) & (labels != ignore_index)
    key = torch.where(counted, labels, num_classes)
    if samples is None:
        in_order, order = key.sort(stable=True)
    else:
        by_sample = samples.argsort(stable=True)
        in_order, then = key[by_sample].sort(stable=True)
        order = by_sample[then]
    new = in_order.diff(prepend=in_order[:1]) != 0
    rank = new.cumsum(0)
    unit = None
    if samples is not None:
        of_order = samples[order]
        unit = (new | (of_order.diff(prepend=of_order[:1]) != 0)).cumsum(0).int()
    label_of_rank = torch.full_like(in_order, num_classes).scatter_(0, rank, in_order)
    start = torch.searchsorted(in_order, torch.arange(num_classes + 1, device=labels.device))
    return ClassOrder(order.int(), in_order.int(), rank.int(), label_of_rank.int(), start, unit)


@dataclass(frozen=True)
class _Kept:
    labels: weakref.ref[Tensor]
    version: int
    key: tuple[int, int, int]
    order: ClassOrder


_kept: deque[_Kept] = deque(maxlen=_KEPT)


def class_order(labels: Tensor, num_classes: int, ignore_index: int) -> ClassOrder:
    """Return `make_order(labels, num_classes, ignore_index)`, which may be kept from an earlier call.

    Kept for the same tensor object, as long as nothing wrote into it in torch's knowledge, and for one stream: another
    one would have to wait for it. A CUDA graph being captured gets its own, because it runs again with other labels.
    """
    if labels.is_inference() or (labels.is_cuda and torch.cuda.is_current_stream_capturing()):
        return make_order(labels, num_classes, ignore_index)
    key, version = (num_classes, ignore_index, current_stream(labels)), labels._version
    for kept in tuple(_kept):
        if kept.labels() is labels and kept.version == version and kept.key == key:
            return kept.order
    order = make_order(labels, num_classes, ignore_index)
    _kept.append(_Kept(weakref.ref(labels), version, key, order))
    return order
