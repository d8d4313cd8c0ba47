"""Inner products between the class gradients of one parameter, without storing the class gradients."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from imbdyn.ops._checks import IGNORE_INDEX, check_num_classes, check_rows
from imbdyn.ops._library import define, implement
from imbdyn.ops.class_gram.portable import class_gram_portable


class ClassGram(NamedTuple):
    """Everything that norms, cosines, conflicts and shares of class gradients follow from."""

    gram: Tensor
    """float64 [C, C]: <G_a, G_b>_F; rows and columns of absent classes are 0."""
    sample_norm_sq: Tensor
    """float64 [C]: sum over the samples i of class c of ||g_i||^2."""


def class_gram(
    inputs: Tensor,
    grad_outputs: Tensor,
    labels: Tensor,
    num_classes: int,
    samples: Tensor | None = None,
    *,
    ignore_index: int = IGNORE_INDEX,
) -> ClassGram:
    """Compute gram[a, b] = <G_a, G_b>_F with G_c = sum over rows r of class c of grad_outputs_r (outer) inputs_r.

    sum_ab gram[a, b] = ||sum_c G_c||^2 is the squared norm of the whole weight gradient: an identity on every model.

    Args:
        inputs: [R, I], what the parameter was multiplied with. A bias has ones [R, 1].
        grad_outputs: [R, O], dL/d(output) of the same rows and dtype.
        labels: int64 [R], class of each row, in 0..num_classes-1 or `ignore_index`.
        num_classes: C, at least 1.
        samples: int64 [R], the sample each row (token, pixel) belongs to; None when every row is a sample.
            Cheapest when samples ascend and each has equally many rows.
        ignore_index: label of rows that count nowhere.

    Returns:
        gram float64 [C, C] and sample_norm_sq float64 [C], accumulated in the inputs' dtype or better.

    Raises:
        ValueError: if shapes disagree, there is no class or a label is out of range (the message names the row).
        TypeError: if a dtype is wrong.
    """
    check_rows("inputs", inputs, labels)
    check_rows("grad_outputs", grad_outputs, labels)
    check_num_classes(num_classes)
    if inputs.dtype != grad_outputs.dtype:
        raise TypeError(f"inputs and grad_outputs need one dtype, got {inputs.dtype} and {grad_outputs.dtype}")
    if samples is not None and samples.shape != labels.shape:
        raise ValueError(f"samples must be [R] with R={labels.shape[0]}, got {tuple(samples.shape)}")
    return ClassGram(
        *torch.ops.imbdyn.class_gram(inputs.detach(), grad_outputs.detach(), labels, num_classes, samples, ignore_index)
    )


def _fake(
    inputs: Tensor,
    grad_outputs: Tensor,  # noqa: ARG001
    labels: Tensor,  # noqa: ARG001
    num_classes: int,
    samples: Tensor | None,  # noqa: ARG001
    ignore_index: int,  # noqa: ARG001
) -> tuple[Tensor, Tensor]:
    return (
        inputs.new_empty((num_classes, num_classes), dtype=torch.float64),
        inputs.new_empty(num_classes, dtype=torch.float64),
    )


define(
    "class_gram(Tensor inputs, Tensor grad_outputs, Tensor labels, int num_classes, Tensor? samples, "
    "int ignore_index) -> (Tensor, Tensor)",
    _fake,
)
implement("class_gram", "portable", "any", "plain torch: gram way or direct way, by shape", class_gram_portable)
