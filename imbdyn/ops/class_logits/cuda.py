"""class_logits in CUDA C++ for 2 to 128 classes (csrc/cuda/class_logits.h); what it does not take goes elsewhere."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from imbdyn.ops import _extension
from imbdyn.ops._gpu import imported_on_call
from imbdyn.ops._triton import launching_on
from imbdyn.ops.class_logits.portable import class_logits_portable

#: Classes that the kernels take; their order of sums is always the same.
LEAST, MOST = 2, 128

_add_by_triton = imported_on_call("imbdyn.ops.class_logits.triton", "add_class_logits_triton")
_HAS_TRITON = find_spec("triton") is not None


def class_logits_cuda(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Return float64 [8, C], one row a field of `imbdyn.ops.ClassLogits`, in that order."""
    sums = torch.zeros(8, logits.shape[1], dtype=torch.float64, device=logits.device)
    add_class_logits_cuda(sums, logits, labels, ignore_index)
    return sums


def add_class_logits_cuda(sums: Tensor, logits: Tensor, labels: Tensor, ignore_index: int) -> None:
    """Add what `class_logits_cuda` returns to `sums`; RuntimeError if this build has no CUDA kernels."""
    _C = _extension.kernels
    if _C is None or not _C.has_cuda:
        raise RuntimeError("imbdyn was built without its CUDA kernels; see `imbdyn info`")
    rows, num_classes = logits.shape
    if not takes(logits) or not sums.is_contiguous():
        if _HAS_TRITON:
            _add_by_triton(sums, logits, labels, ignore_index)
        else:
            sums += class_logits_portable(logits, labels, ignore_index)
        return
    element_type = _extension.element_type("logits", logits.dtype)
    with launching_on(logits):
        gpu = _gpu(logits.device)
        size = _C.class_logits_cuda_bytes(rows, num_classes, element_type, *gpu)
        memory = torch.empty(size, dtype=torch.uint8, device=logits.device)
        _C.add_class_logits_cuda(
            sums.data_ptr(),
            logits.data_ptr(),
            element_type,
            rows,
            labels.data_ptr(),
            labels.stride(0),
            num_classes,
            ignore_index,
            *gpu,
            memory.data_ptr(),
            torch.cuda.current_stream().cuda_stream,
        )


def takes(logits: Tensor) -> bool:
    """Return whether the kernels take these logits: as many classes, contiguous, aligned, not float64."""
    return (
        LEAST <= logits.shape[1] <= MOST
        and logits.dtype != torch.float64
        and logits.is_contiguous()
        and logits.data_ptr() % 16 == 0
    )


@cache
def _gpu(device: torch.device) -> tuple[int, int]:
    """Return the multiprocessors, and the bytes of shared memory of each."""
    properties = torch.cuda.get_device_properties(device)
    return properties.multi_processor_count, properties.shared_memory_per_multiprocessor
