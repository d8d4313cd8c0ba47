"""The oracle of class_gram: every sample's gradient is made, one outer product at a time, in float64."""

from __future__ import annotations

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
    flat = gradient_COI.flatten(1)
    return flat @ flat.T, sample_norm_sq_C
