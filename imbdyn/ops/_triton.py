"""What the Triton implementations share on the host's side."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor


def launching_on(tensor: Tensor) -> AbstractContextManager[object]:
    """Return the context in which a kernel is launched on the device of `tensor`: Triton takes the current one.

    Nothing is to be done where it is the current one, or where Triton's interpreter runs kernels on CPU tensors.
    """
    if not tensor.is_cuda or tensor.device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(tensor.device)


#: AMD's compiler also asks how large a tensor is; there every launch goes all of Triton's way.
_KEEPS_COMPILED = torch.version.hip is None

#: Addresses that a compiled kernel may take for multiples of this are so in every launch that is kept.
_ALIGNED = 16


class Launch:
    """A kernel with its grid and all its arguments but the tensors: what is the same from call to call.

    Triton looks at each argument of each launch to find the kernel that was compiled for it, 10 to 20 us of the host
    for our longer lists. Numbers stay as they are here, so only the addresses can choose another kernel, by whether
    they are multiples of 16: if all are, which torch's own memory is, the compiled kernel is launched at once.

    Args:
        kernel: whose parameters are tensors first, then numbers, then constants.
        grid: of up to three numbers.
        numbers: all that follows the tensors, in order. Whoever keeps a `Launch` does so for one device, and for
            tensors that always have the same dtypes (and are None in the same places).
        options: `num_warps` and `num_stages`.
    """

    __slots__ = ("_compiled", "_grid", "_kernel", "_numbers", "_options")

    def __init__(self, kernel: Any, grid: tuple[int, ...], numbers: tuple[object, ...], **options: int) -> None:
        self._kernel, self._numbers, self._options = kernel, numbers, options
        self._grid = (*grid, 1, 1)[:3]
        self._compiled: Callable[..., object] | None = None

    def __call__(self, *tensors: Tensor | None) -> None:
        """Launch it on the current device and stream."""
        addresses = [0 if t is None else t.data_ptr() for t in tensors]
        bits = 0
        for address in addresses:
            bits |= address
        if bits % _ALIGNED:
            self._kernel[self._grid](*tensors, *self._numbers, **self._options)
        elif self._compiled is not None:
            self._compiled(*addresses, *self._numbers)
        else:
            compiled = self._kernel[self._grid](*tensors, *self._numbers, **self._options)
            if compiled is not None and _KEEPS_COMPILED:  # None: the interpreter has run it
                self._compiled = compiled[self._grid]


def multiprocessors(device: torch.device) -> int:
    """Return the number of multiprocessors; 1 where Triton's interpreter takes CPU tensors."""
    return _multiprocessors(device) if device.type == "cuda" else 1


@cache
def _multiprocessors(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def current_stream(tensor: Tensor) -> int:
    """Return the number of the current stream of the device of `tensor`; 0 on the CPU."""
    return torch._C._cuda_getCurrentRawStream(tensor.get_device()) if tensor.is_cuda else 0


def alignment(element_size: int, *multiples: int) -> int:
    """Return the largest power of two, of at most 16 bytes in elements, that divides all `multiples`.

    A kernel that is given strides in units of it knows that it may read so many elements at once.
    """
    bits = 16 // element_size
    for multiple in multiples:
        bits |= multiple
    return bits & -bits
