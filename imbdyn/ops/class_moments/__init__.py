"""Per-class count, mean and sum of squared deviations of feature vectors, in one pass."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from imbdyn.ops._checks import IGNORE_INDEX, check_num_classes, check_rows, without_graph
from imbdyn.ops._library import define, implement
from imbdyn.ops.class_moments.cpu import register as register_cpu
from imbdyn.ops.class_moments.cuda import register as register_cuda
from imbdyn.ops.class_moments.reference import class_moments_reference


class ClassMoments(NamedTuple):
    """Moments of one class a row; mergeable by the pairwise rule of Chan, Golub and LeVeque (1979)."""

    count: Tensor  # type: ignore[assignment]  # the field hides tuple.count, which nobody needs here
    """int64 [C]: rows of each class."""
    mean: Tensor
    """[C, D]: mean of each class's rows; 0 where count is 0."""
    m2: Tensor
    """[C, D]: sum of squared deviations from that mean, so variance = m2 / (count - 1); 0 where count is 0."""


def accumulator_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of mean and m2 for features of `dtype`: float64 stays, all else becomes float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def class_moments(
    features: Tensor, labels: Tensor, num_classes: int, *, ignore_index: int = IGNORE_INDEX
) -> ClassMoments:
    """Compute each class's count, mean and m2 = sum_i (x_i - mean)^2 over the rows of that class.

    Stable: never E[x^2] - E[x]^2, so a mean of 1e4 with a deviation of 1 keeps five digits in float32.

    Args:
        features: [N, D], float64, float32, bfloat16 or float16, any strides.
        labels: int64 [N], each in 0..num_classes-1 or `ignore_index`.
        num_classes: C, at least 1.
        ignore_index: label of rows that count nowhere.

    Returns:
        count int64 [C]; mean and m2 [C, D], float64 for float64 features and float32 otherwise.

    Raises:
        ValueError: if shapes disagree, there is no class or a label is out of range (the message names the row).
        TypeError: if a dtype is wrong.

    Source: Chan, Golub, LeVeque (1979), "Updating formulae and a pairwise algorithm for computing sample variances".
    """
    check_rows("features", features, labels)
    check_num_classes(num_classes)
    return ClassMoments(*_CLASS_MOMENTS(without_graph(features), labels, num_classes, ignore_index))


def _fake(features: Tensor, labels: Tensor, num_classes: int, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG001
    moments = (num_classes, features.shape[1])
    dtype = accumulator_dtype(features.dtype)
    return (
        labels.new_empty(num_classes),
        features.new_empty(moments, dtype=dtype),
        features.new_empty(moments, dtype=dtype),
    )


def _from_reference(
    features: Tensor, labels: Tensor, num_classes: int, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    count, mean, m2 = class_moments_reference(features, labels, num_classes, ignore_index)
    dtype = accumulator_dtype(features.dtype)
    return count, mean.to(dtype), m2.to(dtype)


_CLASS_MOMENTS = define(
    "class_moments(Tensor features, Tensor labels, int num_classes, int ignore_index) -> (Tensor, Tensor, Tensor)",
    _fake,
)
implement("class_moments", "reference", "any", "plain torch, float64", _from_reference)
register_cpu()
register_cuda()
