"""Checks that every op makes on its arguments, with messages that name the argument and the row."""

from __future__ import annotations

import torch
from torch import Tensor

#: The label of a row that counts nowhere (torch.nn.functional.cross_entropy has the same default).
IGNORE_INDEX = -100


def bad_label(row: int, value: int, num_classes: int, ignore_index: int) -> ValueError:
    """Return the error for a label that is neither a class nor `ignore_index`."""
    return ValueError(
        f"labels[{row}] is {value}: a label must be in 0..{num_classes - 1} or equal ignore_index={ignore_index}"
    )


def check_labels(labels: Tensor, num_classes: int, ignore_index: int) -> bool:
    """Check int64 `labels` [N]; return whether every row counts, that is, none is `ignore_index`.

    Raises:
        ValueError: naming the first row that is neither a class in 0..num_classes-1 nor `ignore_index`.
    """
    if not labels.numel():
        return True
    low, high = (int(bound) for bound in labels.aminmax())
    if not 0 <= low <= high < num_classes:
        bad = ((labels < 0) | (labels >= num_classes)) & (labels != ignore_index)
        if bool(bad.any()):
            row = int(bad.nonzero()[0])
            raise bad_label(row, int(labels[row]), num_classes, ignore_index)
    return not low <= ignore_index <= high or not bool((labels == ignore_index).any())


def check_rows(name: str, rows: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless `rows` is [N, D] with a floating dtype and `labels` is int64 [N].

    TypeError is raised for a wrong dtype. Values are not read: a label's range is checked where labels are read.
    """
    shape, of_labels = rows.shape, labels.shape  # each question to a tensor counts: a call may take microseconds
    if len(shape) != 2:
        raise ValueError(f"{name} must be a matrix [N, D], got shape {tuple(shape)}")
    if not rows.is_floating_point():
        raise TypeError(f"{name} must have a floating dtype, got {rows.dtype}")
    if len(of_labels) != 1 or of_labels[0] != shape[0]:
        raise ValueError(f"labels must be [N] with N={shape[0]} as in {name}, got {tuple(of_labels)}")
    if labels.dtype != torch.int64:
        raise TypeError(f"labels must be int64, got {labels.dtype}")


def without_graph(t: Tensor) -> Tensor:
    """Return `t` as no graph knows it; a tensor without a graph itself, which takes a tenth of the time."""
    return t.detach() if t.requires_grad else t


def check_num_classes(num_classes: int) -> None:
    """Raise ValueError unless there is a class."""
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
