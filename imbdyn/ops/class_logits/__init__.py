"""Per-class loss, accuracy, margin, confidence and logit gradients of a batch of logits, in one pass."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from imbdyn.ops._checks import IGNORE_INDEX, check_num_classes, check_rows, without_graph
from imbdyn.ops._gpu import offer
from imbdyn.ops._library import define, implement, register
from imbdyn.ops.class_logits.cpu import register as register_cpu
from imbdyn.ops.class_logits.reference import class_logits_reference


class ClassLogits(NamedTuple):
    """Sums over the rows of each class, all float64 [C]; two batches merge by adding. p = softmax(z)."""

    count: Tensor  # type: ignore[assignment]  # the field hides tuple.count, which nobody needs here
    """Rows with label c."""
    loss_sum: Tensor
    """Sum of the cross-entropy -log p_y over rows with y = c, in nats."""
    correct: Tensor
    """Rows with label c whose largest logit is c (ties go to the lower class, NaN counts as largest)."""
    margin_sum: Tensor
    """Sum of z_y - max_{k != y} z_k over rows with y = c (Cao et al. 2019)."""
    confidence_sum: Tensor
    """Sum of p_y over rows with y = c."""
    predicted: Tensor
    """Rows of any label whose largest logit is c."""
    positive_grad: Tensor
    """Sum of |dloss/dz_c| = 1 - p_c over rows with y = c (Tan et al. 2021, for softmax)."""
    negative_grad: Tensor
    """Sum of |dloss/dz_c| = p_c over rows with y != c; positive - negative = -N dL/db_c for the mean loss L."""


def class_logits(logits: Tensor, labels: Tensor, *, ignore_index: int = IGNORE_INDEX) -> ClassLogits:
    """Sum loss, correctness, margin, confidence and logit gradients of `logits` by class.

    Args:
        logits: z [N, C], float64, float32, bfloat16 or float16, any strides.
        labels: y int64 [N], each in 0..C-1 or `ignore_index`.
        ignore_index: label of rows that count nowhere.

    Returns:
        Eight float64 [C] sums; a class without rows has 0 in each of its own sums. With C = 1 a margin is +inf.

    Raises:
        ValueError: if shapes disagree, there is no class or a label is out of range (the message names the row). On a
            GPU, where nothing waits to raise, a row with such a label counts nowhere, as if it were ignored.
        TypeError: if a dtype is wrong.

    On a GPU the last bits of float64 sums may differ from call to call, since many programs add to them; not under
    torch.use_deterministic_algorithms, at some cost.

    Sources: Cao et al. (2019), arXiv 1906.07413 (margin); Tan et al. (2021), arXiv 2012.08548 (gradient sums).
    """
    check_rows("logits", logits, labels)
    check_num_classes(logits.shape[1])
    return ClassLogits(*_CLASS_LOGITS(without_graph(logits), labels, ignore_index).unbind(0))


def add_class_logits(sums: Tensor, logits: Tensor, labels: Tensor, *, ignore_index: int = IGNORE_INDEX) -> None:
    """Add what `class_logits` returns to `sums`, float64 [8, C] and contiguous, a row a field of `ClassLogits`.

    For reading many batches: nothing is allocated. After an error `sums` means nothing.
    """
    check_rows("logits", logits, labels)
    if sums.dtype != torch.float64 or sums.shape != (len(ClassLogits._fields), logits.shape[1]):
        raise ValueError(f"sums must be float64 [8, {logits.shape[1]}], got {sums.dtype} {list(sums.shape)}")
    _ADD_CLASS_LOGITS(sums, without_graph(logits), labels, ignore_index)


def _fake(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:  # noqa: ARG001
    return logits.new_empty((len(ClassLogits._fields), logits.shape[1]), dtype=torch.float64)


def _fake_add(sums: Tensor, logits: Tensor, labels: Tensor, ignore_index: int) -> None:  # noqa: ARG001
    return None


def _add_reference(sums: Tensor, logits: Tensor, labels: Tensor, ignore_index: int) -> None:
    sums += class_logits_reference(logits, labels, ignore_index)


_CLASS_LOGITS = define("class_logits(Tensor logits, Tensor labels, int ignore_index) -> Tensor", _fake)
_ADD_CLASS_LOGITS = define(
    "add_class_logits(Tensor(a!) sums, Tensor logits, Tensor labels, int ignore_index) -> ()", _fake_add
)
implement("class_logits", "reference", "any", "plain torch, float64", class_logits_reference)
register("add_class_logits", "any", _add_reference)
register_cpu()
offer(
    "class_logits",
    "triton",
    {"class_logits": "class_logits_triton", "add_class_logits": "add_class_logits_triton"},
)
# not measured yet, so behind Triton's
offer("class_logits", "cuda", {"class_logits": "class_logits_cuda", "add_class_logits": "add_class_logits_cuda"})
