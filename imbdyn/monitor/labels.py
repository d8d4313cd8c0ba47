"""The labels of a batch as a user gives them: of one class each, or soft (mixup, CutMix)."""

from __future__ import annotations

import torch
from torch import Tensor

from imbdyn.ops._checks import check_labels


def check_form(labels: object, num_classes: int) -> None:
    """Raise TypeError or ValueError if `labels` are neither int64 [N] nor floating point [N, C]."""
    if isinstance(labels, Tensor):
        if labels.dim() == 1 and labels.dtype == torch.int64:
            return
        if labels.dim() == 2 and labels.is_floating_point():
            if labels.shape[1] != num_classes:
                raise ValueError(f"soft labels must be [N, num_classes={num_classes}], got {list(labels.shape)}")
            return
    kind = f"{labels.dtype} {list(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
    raise TypeError(f"labels must be a tensor int64 [N], or soft, floating point [N, C], got {kind}")


def check_values(labels: Tensor, num_classes: int, ignore_index: int) -> None:
    """Raise ValueError for a label that is no class, or for soft labels that are no shares; on the CPU only."""
    if not labels.is_cpu:  # a look at them would wait for the device
        return
    if labels.dim() == 1:
        check_labels(labels, num_classes, ignore_index)
        return
    wrong = ((labels < 0).any(1) | ~(labels.sum(1) > 0) | ~labels.isfinite().all(1)).nonzero()[:, 0]
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"labels[{row}] is {labels[row].tolist()}: soft labels must be finite, not negative, and not all zero"
        )


def heaviest(labels: Tensor) -> Tensor:
    """Return labels as they are, of soft ones each sample's heaviest class (of equals the first), int64 [N]."""
    return labels if labels.dim() == 1 else labels.argmax(1)


def shares(labels: Tensor) -> Tensor:
    """Return labels as they are, soft ones as shares that sum to 1 in each row, float32 or float64 [N, C]."""
    if labels.dim() == 1:
        return labels
    weights = labels if labels.dtype == torch.float64 else labels.float()
    return weights / weights.sum(1, keepdim=True)


def beside_model(labels: Tensor, device: torch.device) -> Tensor:
    """Return labels on the model's device: CPU labels of a model on a GPU as a copy, for which nothing waits."""
    if not labels.is_cpu or device.type == "cpu":
        return labels
    if device.type != "cuda":
        return labels.to(device)
    # from pinned memory of our own: a copy from any other waits, and the loader may fill its own again before
    pinned = torch.empty(labels.shape, dtype=labels.dtype, device="cpu", pin_memory=True)
    return pinned.copy_(labels).to(device, non_blocking=True)
