"""class_moments in CUDA C++: rows ordered by class, then one read of the features (csrc/cuda/class_moments.h)."""

from __future__ import annotations

import torch
from torch import Tensor

from imbdyn.ops import _extension
from imbdyn.ops._triton import launching_on


def class_moments_cuda(
    features: Tensor, labels: Tensor, num_classes: int, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (count, mean, m2) as `imbdyn.ops.class_moments`; what is no class is ignored, nothing waits to raise.

    RuntimeError if this build has no CUDA kernels.
    """
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    count = torch.empty(num_classes, dtype=torch.int64, device=features.device)
    mean = torch.empty(num_classes, features.shape[1], dtype=dtype, device=features.device)
    m2 = torch.empty(num_classes, features.shape[1], dtype=dtype, device=features.device)
    _launch(count, mean, m2, features, labels, ignore_index, fresh=True)
    return count, mean, m2


def add_class_moments_cuda(
    count: Tensor, mean: Tensor, m2: Tensor, features: Tensor, labels: Tensor, ignore_index: int
) -> None:
    """Add rows to moments as `imbdyn.ops.add_class_moments`; what is no class is ignored, nothing waits to raise.

    RuntimeError if this build has no CUDA kernels.
    """
    _launch(count, mean, m2, features, labels, ignore_index, fresh=False)


def _launch(
    count: Tensor, mean: Tensor, m2: Tensor, features: Tensor, labels: Tensor, ignore_index: int, *, fresh: bool
) -> None:
    _C = _extension.kernels
    if _C is None or not _C.has_cuda:
        raise RuntimeError("imbdyn was built without its CUDA kernels; see `imbdyn info`")
    rows, columns = features.shape
    element_type = _extension.element_type("features", features.dtype)
    with launching_on(features):
        memory = torch.empty(
            _C.class_moments_cuda_bytes(rows, columns, len(count), element_type),
            dtype=torch.uint8,
            device=features.device,
        )
        _C.class_moments_cuda(
            features.data_ptr(),
            element_type,
            rows,
            columns,
            *features.stride(),
            labels.data_ptr(),
            labels.stride(0),
            len(count),
            ignore_index,
            count.data_ptr(),
            mean.data_ptr(),
            m2.data_ptr(),
            fresh,
            memory.data_ptr(),
            torch.cuda.current_stream().cuda_stream,
        )
