"""class_moments in C++: rows sorted by class, then one read of the features (csrc/cpu/class_moments.h)."""

from __future__ import annotations

import mmap
from functools import partial

import numpy as np
import torch
from torch import Tensor

from imbdyn.ops import _extension
from imbdyn.ops._checks import bad_label
from imbdyn.ops._library import implement, unavailable
from imbdyn.ops._library import register as register_second

_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


#: Up to a huge page (of x86-64, and of arm64 with pages of 4 KiB) torch's own memory takes less time.
_HUGE_PAGE = 2 << 20
#: Bytes that the system clears, in huge pages, while it hands out one small page.
_CLEARED_MEANWHILE = 27 << 10


def _zeros_on_demand(rows: int, columns: int, *, used: int, dtype: torch.dtype) -> Tensor:
    """Return zeros [rows, columns] in memory that the system hands out when it is touched: absent classes take none.

    In huge pages, as numpy asks for, unless `used` rows at most are so few that small ones are handed out sooner.
    """
    row_bytes = columns * dtype.itemsize
    if rows * row_bytes <= _HUGE_PAGE:
        return torch.zeros(rows, columns, dtype=dtype)
    pages = used * (2 + row_bytes // mmap.PAGESIZE)
    if rows * row_bytes > pages * _CLEARED_MEANWHILE and hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory = mmap.mmap(-1, rows * row_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        return torch.from_numpy(np.frombuffer(memory, _NUMPY[dtype]).reshape(rows, columns))
    return torch.from_numpy(np.zeros((rows, columns), _NUMPY[dtype]))


def register() -> None:
    """Let the compiled kernel serve CPU tensors, or record why it cannot."""
    _C = _extension.kernels
    if _C is None:
        unavailable("class_moments", "cpu", "cpu", "C++", _extension.why_missing)
        return
    class_moments = _C.class_moments

    def class_moments_cpu(
        features: Tensor, labels: Tensor, num_classes: int, ignore_index: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
        count = torch.zeros(num_classes, dtype=torch.int64)
        rows = labels.shape[0]
        zeros = torch.zeros if num_classes <= rows else partial(_zeros_on_demand, used=rows)
        mean = zeros(num_classes, features.shape[1], dtype=dtype)
        m2 = zeros(num_classes, features.shape[1], dtype=dtype)
        add(count, mean, m2, features, labels, ignore_index)
        return count, mean, m2

    def add(count: Tensor, mean: Tensor, m2: Tensor, features: Tensor, labels: Tensor, ignore_index: int) -> None:
        num_classes = count.shape[0]  # len() takes five times as long
        row = class_moments(
            features.data_ptr(),
            _extension.element_type("features", features.dtype),
            *features.shape,
            *features.stride(),
            labels.data_ptr(),
            *labels.stride(),
            num_classes,
            ignore_index,
            count.data_ptr(),
            mean.data_ptr(),
            m2.data_ptr(),
            torch.get_num_threads(),
        )
        if row >= 0:
            raise bad_label(row, int(labels[row]), num_classes, ignore_index)

    implement("class_moments", "cpu", "cpu", f"C++, {_C.active_isa()}", class_moments_cpu)
    register_second("add_class_moments", "cpu", add)
