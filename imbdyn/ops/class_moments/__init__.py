"""Per-class count, mean and sum of squared deviations of feature vectors, in one pass."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from imbdyn.ops._checks import IGNORE_INDEX, check_num_classes, check_rows, without_graph
from imbdyn.ops._gpu import offer
from imbdyn.ops._library import define, implement, register
from imbdyn.ops.class_moments.cpu import register as register_cpu
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

    On a GPU nothing waits there to raise: a label that is neither a class nor `ignore_index` is taken as
    `ignore_index`. The result is bitwise the same each time; beside the result, memory grows with N alone.

    Args:
        features: [N, D], float64, float32, bfloat16 or float16, any strides.
        labels: int64 [N], each in 0..num_classes-1 or `ignore_index`.
        num_classes: C, at least 1.
        ignore_index: label of rows that count nowhere.

    Returns:
        count int64 [C]; mean and m2 [C, D], float64 for float64 features and float32 otherwise.

    Raises:
        ValueError: if shapes disagree, there is no class or, on the CPU, a label is out of range (the message names the
            row).
        TypeError: if a dtype is wrong.

    Source: Chan, Golub, LeVeque (1979), "Updating formulae and a pairwise algorithm for computing sample variances".
    """
    check_rows("features", features, labels)
    check_num_classes(num_classes)
    return ClassMoments(*_CLASS_MOMENTS(without_graph(features), labels, num_classes, ignore_index))


def add_class_moments(
    moments: ClassMoments, features: Tensor, labels: Tensor, *, ignore_index: int = IGNORE_INDEX
) -> None:
    """Add rows to the moments that `class_moments` has returned, in place, as if all had been read in one pass.

    mean = mean_a + d n_b / n and m2 = m2_a + m2_b + d^2 n_a n_b / n, with d = mean_b - mean_a and n = n_a + n_b. Only
    the classes that are present are touched: with many classes this is far less than making new moments. On a GPU a
    label that is no class is taken as `ignore_index`, as in `class_moments`.

    Args:
        moments: contiguous; mean and m2 [C, D] of the dtype that `class_moments` returns for these features.
        features, labels, ignore_index: as for `class_moments`.

    Raises:
        ValueError, TypeError: as `class_moments`, and for moments that do not fit the features. Nothing was added then.

    Source: Chan, Golub, LeVeque (1979).
    """
    check_rows("features", features, labels)
    count, mean, m2 = moments
    shape, dtype = (*count.shape, features.shape[1]), accumulator_dtype(features.dtype)
    if not (mean.shape == m2.shape == shape and mean.dtype == m2.dtype == dtype and count.dtype == torch.int64):
        raise ValueError(
            f"moments of these features need mean and m2 {dtype} {list(shape)}, got {mean.dtype} {list(mean.shape)} "
            f"and {m2.dtype} {list(m2.shape)}"
        )
    if not (count.is_contiguous() and mean.is_contiguous() and m2.is_contiguous()):
        raise ValueError("moments must be contiguous")
    _ADD_CLASS_MOMENTS(count, mean, m2, without_graph(features), labels, ignore_index)


def _fake(features: Tensor, labels: Tensor, num_classes: int, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG001
    moments = (num_classes, features.shape[1])
    dtype = accumulator_dtype(features.dtype)
    return (
        labels.new_empty(num_classes),
        features.new_empty(moments, dtype=dtype),
        features.new_empty(moments, dtype=dtype),
    )


def _fake_add(*_: object) -> None:
    return None


def _add(count: Tensor, mean: Tensor, m2: Tensor, features: Tensor, labels: Tensor, ignore_index: int) -> None:
    n_new, mean_new, m2_new = _CLASS_MOMENTS(features, labels, len(count), ignore_index)
    before, new = (n.to(mean.dtype)[:, None] for n in (count, n_new))
    weight = new / (before + new).clamp(min=1)
    delta = mean_new - mean
    m2 += m2_new + delta.square() * before * weight
    mean.copy_(torch.where(delta.isfinite(), mean + delta * weight, mean * (1 - weight) + mean_new * weight))
    count += n_new


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
_ADD_CLASS_MOMENTS = define(
    "add_class_moments(Tensor(a!) count, Tensor(b!) mean, Tensor(c!) m2, Tensor features, Tensor labels, "
    "int ignore_index) -> ()",
    _fake_add,
)
implement("class_moments", "reference", "any", "plain torch, float64", _from_reference)
register("add_class_moments", "any", _add)
register_cpu()
for _name in ("cuda", "triton"):
    offer(
        "class_moments",
        _name,
        {"class_moments": f"class_moments_{_name}", "add_class_moments": f"add_class_moments_{_name}"},
    )
