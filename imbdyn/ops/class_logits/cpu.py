"""class_logits in C++: one read of each row, eight sums by class (csrc/cpu/class_logits.h)."""

from __future__ import annotations

import torch
from torch import Tensor

from imbdyn.ops import _extension, _library
from imbdyn.ops._checks import bad_label
from imbdyn.ops._library import implement, unavailable


def register() -> None:
    """Let the compiled kernel serve CPU tensors, or record why it cannot."""
    _C = _extension.kernels
    if _C is None:
        unavailable("class_logits", "cpu", "cpu", "C++", _extension.why_missing)
        return
    class_logits = _C.class_logits

    def add(sums: Tensor, logits: Tensor, labels: Tensor, ignore_index: int) -> None:
        row = class_logits(
            logits.data_ptr(),
            _extension.element_type("logits", logits.dtype),
            *logits.shape,
            *logits.stride(),
            labels.data_ptr(),
            *labels.stride(),
            ignore_index,
            sums.data_ptr(),
            torch.get_num_threads(),
        )
        if row >= 0:
            raise bad_label(row, int(labels[row]), logits.shape[1], ignore_index)

    def class_logits_cpu(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
        sums = torch.zeros(8, logits.shape[1], dtype=torch.float64)
        add(sums, logits, labels, ignore_index)
        return sums

    def add_class_logits_cpu(sums: Tensor, logits: Tensor, labels: Tensor, ignore_index: int) -> None:
        if sums.is_contiguous():
            add(sums, logits, labels, ignore_index)
        else:
            sums += class_logits_cpu(logits, labels, ignore_index)

    implement("class_logits", "cpu", "cpu", f"C++, {_C.active_isa()}", class_logits_cpu)
    _library.register("add_class_logits", "cpu", add_class_logits_cpu)
