"""class_logits in C++: one read of each row, eight sums by class (csrc/cpu/class_logits.h)."""

from __future__ import annotations

import torch
from torch import Tensor

from imbdyn.ops import _extension
from imbdyn.ops._checks import bad_label
from imbdyn.ops._library import implement, unavailable


def register() -> None:
    """Let the compiled kernel serve CPU tensors, or record why it cannot."""
    _C = _extension.kernels
    if _C is None:
        unavailable("class_logits", "cpu", "cpu", "C++", _extension.why_missing)
        return

    def class_logits_cpu(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
        num_classes = logits.shape[1]
        # Zero-filled: the kernel adds to it.
        sums = torch.zeros(8, num_classes, dtype=torch.float64)
        row = _C.class_logits(
            logits.data_ptr(),
            _extension.element_type("logits", logits.dtype),
            *logits.shape,
            *logits.stride(),
            labels.data_ptr(),
            labels.stride(0),
            ignore_index,
            sums.data_ptr(),
            torch.get_num_threads(),
        )
        if row >= 0:
            raise bad_label(row, int(labels[row]), num_classes, ignore_index)
        return sums

    implement("class_logits", "cpu", "cpu", f"C++, {_C.active_isa()}", class_logits_cpu)
