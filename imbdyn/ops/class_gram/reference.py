"""The oracles of class_gram: every sample's gradient is made, as its formula says, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from imbdyn.ops._checks import IGNORE_INDEX, check_labels


def class_gram_reference(
    inputs: Tensor,
    grad_outputs: Tensor,
    labels: Tensor,
    num_classes: int,
    samples: Tensor | None = None,
    ignore_index: int = IGNORE_INDEX,
) -> tuple[Tensor, Tensor]:
    """Return (gram float64 [C, C], sample_norm_sq float64 [C]); see `imbdyn.ops.class_gram`."""
    check_labels(labels, num_classes, ignore_index)
    samples = torch.arange(labels.shape[0]) if samples is None else samples
    a_RI, d_RO = inputs.double(), grad_outputs.double()
    gradient_COI = a_RI.new_zeros(num_classes, d_RO.shape[1], a_RI.shape[1])
    sample_norm_sq_C = a_RI.new_zeros(num_classes)
    gradient_of: dict[tuple[int, int], Tensor] = {}
    for r, (sample, c) in enumerate(zip(samples.tolist(), labels.tolist(), strict=True)):
        if c != ignore_index:
            row = torch.outer(d_RO[r], a_RI[r])
            gradient_of[sample, c] = gradient_of[sample, c] + row if (sample, c) in gradient_of else row
    for (_, c), gradient in gradient_of.items():
        gradient_COI[c] += gradient
        sample_norm_sq_C[c] += gradient.square().sum()
    return _inner_products(gradient_COI, labels, ignore_index), sample_norm_sq_C


def class_gram_conv_reference(
    inputs: Tensor,
    grad_outputs: Tensor,
    labels: Tensor,
    num_classes: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    ignore_index: int = IGNORE_INDEX,
) -> tuple[Tensor, Tensor]:
    """Return (gram float64 [C, C], sample_norm_sq float64 [C]); `padding` is that before each dimension."""
    check_labels(labels, num_classes, ignore_index)
    channels, outputs = inputs.shape[1] // groups, grad_outputs.shape[1] // groups
    size, out = inputs.shape[2:], grad_outputs.shape[2:]
    geometry = (padding, size, out, stride, kernel_size, dilation)
    reach = [p + n + o * s + k * d for p, n, o, s, k, d in zip(*geometry, strict=True)]
    gradient_C = inputs.new_zeros(num_classes, groups, outputs, channels, *kernel_size, dtype=torch.float64)
    sample_norm_sq_C = inputs.new_zeros(num_classes, dtype=torch.float64)
    for x, d, c in zip(inputs.double(), grad_outputs.double(), labels.tolist(), strict=True):
        if c == ignore_index:
            continue
        padded = x.new_zeros(x.shape[0], *reach)
        padded[(slice(None), *(slice(p, p + n) for p, n in zip(padding, size, strict=True)))] = x
        gradient = gradient_C.new_zeros(gradient_C.shape[1:])
        for g, (index, tap) in product(range(groups), enumerate(product(*map(range, kernel_size)))):
            here = [
                slice(t * step, t * step + n * s, s) for t, step, n, s in zip(tap, dilation, out, stride, strict=True)
            ]
            seen = padded[(slice(g * channels, (g + 1) * channels), *here)].flatten(1)
            gradient[g].flatten(2)[..., index] = d[g * outputs : (g + 1) * outputs].flatten(1) @ seen.T
        gradient_C[c] += gradient
        sample_norm_sq_C[c] += gradient.square().sum()
    return _inner_products(gradient_C, labels, ignore_index), sample_norm_sq_C


def _inner_products(gradient_C: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Return [C, C]; an absent class has 0 even beside an infinite gradient, where 0 times infinity would be NaN."""
    gram_CC = gradient_C.new_zeros(len(gradient_C), len(gradient_C))
    present = labels[labels != ignore_index].unique()
    flat = gradient_C[present].flatten(1)
    gram_CC[present[:, None], present] = flat @ flat.T
    return gram_CC
