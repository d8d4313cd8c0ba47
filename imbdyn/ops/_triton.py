"""What the Triton implementations share on the host's side."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def launching_on(tensor: Tensor) -> AbstractContextManager[object]:
    """Return the context in which a kernel is launched on the device of `tensor`: Triton takes the current one.

    Nothing is to be done where it is the current one, or where Triton's interpreter runs kernels on CPU tensors.
    """
    if not tensor.is_cuda or tensor.device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(tensor.device)
