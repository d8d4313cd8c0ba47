"""class_gram of an embedding: the class gradients are sums of rows by (class, entry), in plain torch on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from imbdyn.ops.class_gram.portable import SCRATCH, add_products


def class_gram_lookup(
    indices: Tensor, grad_outputs: Tensor, labels: Tensor, num_classes: int, samples: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute gram[a, b] = <G_a, G_b> with G_c[v] = sum of grad_outputs_r over the rows r of class c with index v.

    Args:
        indices: int64 [R], the entry that each row was looked up in; negative for rows that go nowhere.
        grad_outputs: [R, D].
        labels: int64 [R], each in 0..num_classes-1.
        num_classes: C.
        samples: int64 [R], the sample that each row belongs to; all rows of a sample have one label.

    Returns:
        gram float64 [C, C], and the sum of each class's squared sample norms, float64 [C].
    """
    if indices.is_cuda:
        return lookup_waitless(indices, grad_outputs, labels, num_classes, samples)
    counted, d_RD = indices >= 0, grad_outputs
    if not bool(counted.all()):
        indices, d_RD, labels, samples = indices[counted], d_RD[counted], labels[counted], samples[counted]
    if d_RD.element_size() < 4:
        d_RD = d_RD.float()
    occurring, place = indices.unique(return_inverse=True)
    entries = len(occurring)
    gram = d_RD.new_zeros(num_classes, num_classes, dtype=torch.float64)
    norm_sq = d_RD.new_zeros(num_classes, dtype=torch.float64)
    if not entries:
        return gram, norm_sq
    columns = max(1, SCRATCH // (num_classes * entries))
    for part in d_RD.split(columns, dim=1):
        gradient = part.new_zeros(num_classes * entries, part.shape[1]).index_add_(0, labels * entries + place, part)
        add_products(gram, gradient.view(num_classes, -1))
    # rows of one sample that were looked up in one entry add up before they are squared
    pair, inverse = (samples * entries + place).unique(return_inverse=True)
    of_pair = d_RD.new_zeros(len(pair), d_RD.shape[1]).index_add_(0, inverse, d_RD)
    label_of_pair = labels.new_empty(len(pair)).index_put_((inverse,), labels)
    norm_sq.index_add_(0, label_of_pair, torch.linalg.vector_norm(of_pair, dim=1).double().square())
    return gram, norm_sq


def lookup_waitless(
    indices: Tensor, grad_outputs: Tensor, labels: Tensor, num_classes: int, samples: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what `class_gram_lookup` returns without a question to the device: R entries may occur, one a row."""
    rows = len(indices)
    gram = grad_outputs.new_zeros(num_classes, num_classes, dtype=torch.float64)
    norm_sq = grad_outputs.new_zeros(num_classes, dtype=torch.float64)
    if not grad_outputs.numel():
        return gram, norm_sq
    d_RD = torch.where((indices >= 0)[:, None], grad_outputs, 0)
    if d_RD.element_size() < 4:
        d_RD = d_RD.float()
    place = _numbered(indices)
    for part in d_RD.split(max(1, SCRATCH // (num_classes * rows)), dim=1):
        gradient = part.new_zeros(num_classes * rows, part.shape[1]).index_add_(0, labels * rows + place, part)
        add_products(gram, gradient.view(num_classes, -1))
    pair = _numbered(samples * rows + place)
    of_pair = torch.zeros_like(d_RD).index_add_(0, pair, d_RD)
    label_of_pair = torch.zeros_like(labels).scatter_(0, pair, labels)  # pairs that are not there have norm 0
    norm_sq.index_add_(0, label_of_pair, torch.linalg.vector_norm(of_pair, dim=1).double().square())
    return gram, norm_sq


def _numbered(keys: Tensor) -> Tensor:
    """Return for each key how many smaller ones there are, each counted once: `unique`'s inverse."""
    in_order, order = keys.sort()
    number = (in_order.diff(prepend=in_order[:1]) != 0).cumsum(0)
    return torch.empty_like(number).scatter_(0, order, number)
