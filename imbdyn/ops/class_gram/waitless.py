"""class_gram in plain torch without a question to the device: where no kernel serves, and bitwise repeatable.

As `portable`, but what is present is not asked for: P is min(samples, classes + 1) ranks (order.py), of which those
that are not there have gradients 0. For float64, groups and three dimensions, and deterministic algorithms.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from imbdyn.ops.class_gram.geometry import pad_reached
from imbdyn.ops.class_gram.order import ClassOrder
from imbdyn.ops.class_gram.portable import SCRATCH, add_products

#: Rows of one block of pairs.
_BLOCK = 1024


def _sums(t: Tensor) -> Tensor:
    """Return bf16 and fp16 as float32: their products need float32 sums."""
    return t.float() if t.element_size() < 4 else t


def _rank_of_sample(order: ClassOrder) -> Tensor:
    return torch.empty_like(order.rank).scatter_(0, order.samples.long(), order.rank).long()


def _spread(order: ClassOrder, gram_PP: Tensor, norm_P: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return gram [C, C] and norms [C] of those of ranks; NaN for norms that are not wanted."""
    classes = len(order.start) - 1
    label = order.label_of_rank[: len(gram_PP)].long()
    gram = gram_PP.new_zeros(classes + 1, classes + 1)
    gram[label[:, None], label] = gram_PP
    norms = gram_PP.new_full((classes + 1,), 0.0 if norm_P is not None else torch.nan)
    if norm_P is not None:
        norms[label] = norm_P
    return gram[:classes, :classes].contiguous(), norms[:classes].clone()


def ranks(order: ClassOrder) -> int:
    """Return P, at least the number of different ranks."""
    return min(len(order.samples), len(order.start))


def gram_waitless(inputs: Tensor, grad_outputs: Tensor, order: ClassOrder, sample_norms: bool) -> tuple[Tensor, Tensor]:
    """Return (gram float64 [C, C], sample_norm_sq float64 [C]) of inputs [S, L, I] and grad_outputs [S, L, O]."""
    a_SLI, d_SLO, present = _sums(inputs), _sums(grad_outputs), ranks(order)
    gram_PP = a_SLI.new_zeros(present, present, dtype=torch.float64)
    norm_P = a_SLI.new_zeros(present, dtype=torch.float64)
    if a_SLI.numel() and d_SLO.numel():
        samples, length, columns = a_SLI.shape
        rows, outputs = samples * length, d_SLO.shape[2]
        pairs = rows * rows * (columns + outputs + 8)
        made = samples if length > 1 else present
        if order.unit is not None or pairs <= 2 * outputs * columns * (rows + present * present + 8 * made):
            _add_pairs(gram_PP, norm_P, a_SLI.flatten(0, 1), d_SLO.flatten(0, 1), order, length)
        elif length == 1:
            _add_masked(gram_PP, norm_P, a_SLI[:, 0], d_SLO[:, 0], order)
        else:
            _add_samples(gram_PP, norm_P, a_SLI, d_SLO, order)
    return _spread(order, gram_PP, norm_P if sample_norms else None)


def _add_pairs(gram_PP: Tensor, norm_P: Tensor, a_RI: Tensor, d_RO: Tensor, order: ClassOrder, length: int) -> None:
    rank_R = order.rank.long().repeat_interleave(length)
    number = torch.arange(len(order.rank), device=rank_R.device) if order.unit is None else order.unit
    number_R = number.repeat_interleave(length)
    row_R = order.index(None if length == 1 else (length, 1, length)).long()
    blocks = list(zip(*(t.split(_BLOCK) for t in (row_R, rank_R, number_R)), strict=True))
    for i, (row_i, rank_i, number_i) in enumerate(blocks):
        a_i, d_i = a_RI[row_i], d_RO[row_i]
        for j, (row_j, rank_j, number_j) in enumerate(blocks[i:], i):
            k = ((a_i @ a_RI[row_j].T) * (d_i @ d_RO[row_j].T)).double()
            by_class = k.new_zeros(len(k), len(gram_PP)).index_add_(1, rank_j, k)
            part = torch.zeros_like(gram_PP).index_add_(0, rank_i, by_class)
            gram_PP += part if i == j else part + part.T
            within = torch.where(number_i[:, None] == number_j, k, 0).sum(1)
            norm_P.index_add_(0, rank_i, within if i == j else 2 * within)


def _add_masked(gram_PP: Tensor, norm_P: Tensor, a_RI: Tensor, d_RO: Tensor, order: ClassOrder) -> None:
    """Make each rank's gradient from all rows, those of others being 0: as many products as ranks."""
    rank_R = _rank_of_sample(order)
    norm_P.index_add_(0, rank_R, a_RI.double().square().sum(1) * d_RO.double().square().sum(1))
    present, columns = len(gram_PP), a_RI.shape[1]
    for d_part in d_RO.split(max(1, SCRATCH // (present * columns)), 1):
        slice_P = torch.empty(present, d_part.shape[1] * columns, dtype=a_RI.dtype, device=a_RI.device)
        for p in range(present):
            mine = (rank_R == p)[:, None]
            slice_P[p] = (torch.where(mine, d_part, 0).T @ torch.where(mine, a_RI, 0)).flatten()
        add_products(gram_PP, slice_P)


def _add_samples(gram_PP: Tensor, norm_P: Tensor, a_SLI: Tensor, d_SLO: Tensor, order: ClassOrder) -> None:
    rank_S, present, columns = _rank_of_sample(order), len(gram_PP), a_SLI.shape[2]
    for d_part in d_SLO.split(max(1, SCRATCH // (columns * max(present, 8))), 2):
        slice_P = a_SLI.new_zeros(present, d_part.shape[2] * columns)
        at_once = max(1, SCRATCH // slice_P.shape[1])
        for rank, d, a in zip(*(t.split(at_once) for t in (rank_S, d_part, a_SLI)), strict=True):
            gradients = torch.bmm(d.mT, a).flatten(1)
            slice_P.index_add_(0, rank, gradients)
            norm_P.index_add_(0, rank, torch.linalg.vector_norm(gradients, dim=1).double().square())
        add_products(gram_PP, slice_P)


def windows(
    inputs: Tensor, out: list[int], kernel_size: list[int], stride: list[int], before: list[int], dilation: list[int]
) -> Tensor:
    """Return a view of padded inputs: [U, *out, C, *kernel_size], what each tap sees at each place."""
    padded = pad_reached(inputs, out, kernel_size, stride, before, dilation)
    steps = padded.stride()[2:]
    taps = [(k, step * d) for k, step, d in zip(kernel_size, steps, dilation, strict=True)]
    places = [(n, step * s) for n, step, s in zip(out, steps, stride, strict=True)]
    axes = [(padded.shape[0], padded.stride(0)), *places, (padded.shape[1], padded.stride(1)), *taps]
    return padded.as_strided([n for n, _ in axes], [step for _, step in axes])


def gram_conv_waitless(
    inputs: Tensor,
    grad_outputs: Tensor,
    order: ClassOrder,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    sample_norms: bool,
) -> tuple[Tensor, Tensor]:
    """Return (gram float64 [C, C], sample_norm_sq float64 [C]) of a convolution, from its images' gradients.

    Memory: the images are unfolded, a slice of them at a time, and the ranks' gradients of a slice of outputs.
    """
    present = ranks(order)
    gram_PP = inputs.new_zeros(present, present, dtype=torch.float64)
    norm_P = inputs.new_zeros(present, dtype=torch.float64)
    if inputs.numel() and grad_outputs.numel():
        rank_S, out = _rank_of_sample(order), list(grad_outputs.shape[2:])
        images, channels, outputs = len(inputs), inputs.shape[1] // groups, grad_outputs.shape[1] // groups
        columns, places = channels * math.prod(kernel_size), math.prod(out)
        step = max(1, min(outputs, SCRATCH // (present * columns * groups)))
        at_once = max(1, SCRATCH // (groups * columns * max(places, step)))
        d_SGOL = grad_outputs.reshape(images, groups, outputs, places)
        for d_part in d_SGOL.split(step, 2):
            slice_P = _sums(inputs.new_empty(0)).new_zeros(present, groups * d_part.shape[2] * columns)
            for first in range(0, images, at_once):
                some = slice(first, first + at_once)
                seen = windows(_sums(inputs[some]), out, kernel_size, stride, padding, dilation)
                seen = seen.reshape(len(seen), places, groups, columns).transpose(1, 2)
                gradients = (_sums(d_part[some]) @ seen).flatten(1)
                slice_P.index_add_(0, rank_S[some], gradients)
                norm_P.index_add_(0, rank_S[some], torch.linalg.vector_norm(gradients, dim=1).double().square())
            add_products(gram_PP, slice_P)
    return _spread(order, gram_PP, norm_P if sample_norms else None)
