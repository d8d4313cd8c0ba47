"""class_gram of many parameters at once, whose samples' gradients are made already: biases, scales, positions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def class_gram_samples_portable(
    gradients: Sequence[Tensor], labels: Tensor, num_classes: int, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """Return gram float64 [M, C, C] and sample_norm_sq float64 [M, C] by `class_gram`, parameter by parameter."""
    gram = labels.new_zeros((len(gradients), num_classes, num_classes), dtype=torch.float64)
    norms = labels.new_zeros((len(gradients), num_classes), dtype=torch.float64)
    for i, d_NP in enumerate(gradients):
        ones = d_NP.new_ones(1, 1).expand(d_NP.shape[0], 1)
        gram[i], norms[i] = torch.ops.imbdyn.class_gram.default(ones, d_NP, labels, num_classes, None, ignore_index)
    return gram, norms
