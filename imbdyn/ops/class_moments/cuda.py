"""class_moments in CUDA C++: rows sorted by class, a thread a column (csrc/cuda/class_moments.h)."""

from __future__ import annotations

import torch
from torch import Tensor

from imbdyn.ops import _extension
from imbdyn.ops._checks import check_labels


def class_moments_cuda(
    features: Tensor, labels: Tensor, num_classes: int, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (count, mean, m2) as `imbdyn.ops.class_moments`, for tensors on one CUDA device.

    RuntimeError if this build has no CUDA kernels.
    """
    _C = _extension.kernels
    if _C is None or not _C.has_cuda:
        raise RuntimeError("imbdyn was built without its CUDA kernels; see `imbdyn info`")
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    with torch.cuda.device(features.device):
        check_labels(labels, num_classes, ignore_index)
        # Ignored rows sort in front of class 0 and are cut off.
        class_or_front = labels.where(labels != ignore_index, -1)
        count = torch.bincount(class_or_front + 1, minlength=num_classes + 1)
        start = count.cumsum(0)
        order = class_or_front.argsort(stable=True)
        mean = torch.zeros(num_classes, features.shape[1], dtype=dtype, device=features.device)
        m2 = torch.zeros_like(mean)
        _C.class_moments_cuda(
            features.data_ptr(),
            _extension.element_type("features", features.dtype),
            *features.shape,
            *features.stride(),
            order.data_ptr(),
            start.data_ptr(),
            num_classes,
            mean.data_ptr(),
            m2.data_ptr(),
            torch.cuda.current_stream().cuda_stream,
        )
    return count[1:].clone(), mean, m2
