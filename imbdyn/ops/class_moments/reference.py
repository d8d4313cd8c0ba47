"""The oracle of class_moments: the definition, class by class, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from imbdyn.ops._checks import IGNORE_INDEX, check_labels


def class_moments_reference(
    features: Tensor, labels: Tensor, num_classes: int, ignore_index: int = IGNORE_INDEX
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (count int64 [C], mean float64 [C, D], m2 float64 [C, D]); see `imbdyn.ops.class_moments`."""
    check_labels(labels, num_classes, ignore_index)
    x_ND = features.double()
    count_C = labels.new_zeros(num_classes)
    mean_CD = x_ND.new_zeros(num_classes, features.shape[1])
    m2_CD = torch.zeros_like(mean_CD)
    for c in labels[labels != ignore_index].unique().tolist():
        rows = x_ND[labels == c]
        count_C[c] = rows.shape[0]
        mean_CD[c] = rows.mean(0)
        m2_CD[c] = (rows - mean_CD[c]).square().sum(0)
    return count_C, mean_CD, m2_CD
