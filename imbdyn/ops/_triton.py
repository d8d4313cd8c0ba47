"""What the Triton implementations share on the host's side."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch import Tensor


def launching_on(tensor: Tensor) -> AbstractContextManager[object]:
    """Return the context in which a kernel is launched on the device of `tensor`: Triton takes the current one.

    Nothing is to be done where it is the current one, or where Triton's interpreter runs kernels on CPU tensors.
    """
    if not tensor.is_cuda or tensor.device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(tensor.device)


def multiprocessors(device: torch.device) -> int:
    """Return the number of multiprocessors; 1 where Triton's interpreter takes CPU tensors."""
    return _multiprocessors(device) if device.type == "cuda" else 1


@cache
def _multiprocessors(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def alignment(element_size: int, *multiples: int) -> int:
    """Return the largest power of two, of at most 16 bytes in elements, that divides all `multiples`.

    A kernel that is given strides in units of it knows that it may read so many elements at once.
    """
    bits = 16 // element_size
    for multiple in multiples:
        bits |= multiple
    return bits & -bits
