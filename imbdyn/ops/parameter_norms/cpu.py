"""parameter_norms in C++: one call for all tensors, each read once as it lies (csrc/cpu/parameter_norms.h)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from imbdyn.ops import _extension
from imbdyn.ops._library import implement, unavailable

#: What stands in the kernel's table for the element type of a tensor that was not given, and how many numbers it has
#: for a parameter: address and type of w, grad and previous, and their element count.
_NOT_GIVEN = -1
_TABLE_COLUMNS = 7

#: In the place of the element type of a dtype that the kernel does not read.
_UNREAD = -2


def _types(tensors: Sequence[Tensor | None]) -> list[int]:
    types = _extension.ELEMENT_TYPES
    return [_NOT_GIVEN if t is None else types.get(t.dtype, _UNREAD) for t in tensors]


def _dimensions(tensor: Tensor) -> list[tuple[int, int]]:
    """Return (stride, size) of the dimensions of more than one element: what decides where an element lies."""
    return [(stride, size) for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size != 1]


def _is_dense(tensor: Tensor) -> bool:
    """Return whether the elements fill one piece of memory, in whatever order of the dimensions."""
    expected = 1
    for stride, size in sorted(_dimensions(tensor)):
        if stride != expected:
            return False
        expected *= size
    return True


def _laid_out_alike(
    w: Tensor, grad: Tensor | None, old: Tensor | None, *, by_rows: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the three with equal elements at equal places of one piece of memory each, copied only where they differ.

    By rows that memory is in the order of the indices. What has a dtype that the kernel does not read becomes float64.
    """

    def readable(tensor: Tensor) -> Tensor:
        return tensor if tensor.dtype in _extension.ELEMENT_TYPES else tensor.double()

    w = readable(w)
    if by_rows or not _is_dense(w):
        w = w.contiguous()
    layout = _dimensions(w)

    def like_w(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        tensor = readable(tensor)
        if _dimensions(tensor) == layout:
            return tensor
        return torch.empty_strided(w.shape, w.stride(), dtype=tensor.dtype).copy_(tensor)

    return w, like_w(grad), like_w(old)


def register() -> None:
    """Let the compiled kernel serve CPU tensors, or record why it cannot."""
    _C = _extension.kernels
    if _C is None:
        unavailable("parameter_norms", "cpu", "cpu", "C++", _extension.why_missing)
        return

    def parameter_norms_cpu(
        params: Sequence[Tensor], grads: Sequence[Tensor | None], previous: Sequence[Tensor | None], rows: int
    ) -> tuple[Tensor, Tensor]:
        # A list at a time, not a tensor at a time: with many small tensors these questions are what the call costs.
        lists: Sequence[Sequence[Tensor | None]] = (params, grads, previous)
        types = [_types(tensors) for tensors in lists]
        given = [t for tensors in lists for t in tensors if t is not None]
        if any(_UNREAD in column for column in types) or not all(map(Tensor.is_contiguous, given)):
            triples = zip(params, grads, previous, strict=True)
            alike = [_laid_out_alike(*triple, by_rows=i == rows) for i, triple in enumerate(triples)]
            lists = list(zip(*alike, strict=True))  # keeps the copies alive during the call
            types = [_types(tensors) for tensors in lists]
        table = [0] * (_TABLE_COLUMNS * len(params))
        for i, tensors in enumerate(lists):
            table[2 * i :: _TABLE_COLUMNS] = [0 if t is None else t.data_ptr() for t in tensors]
            table[2 * i + 1 :: _TABLE_COLUMNS] = types[i]
        table[_TABLE_COLUMNS - 1 :: _TABLE_COLUMNS] = [w.numel() for w in params]

        out = torch.empty(len(params), 4, dtype=torch.float64)
        rows_out = torch.empty(params[rows].shape[0] if rows >= 0 else 0, 4, dtype=torch.float64)
        _C.parameter_norms(table, rows, rows_out.shape[0], out.data_ptr(), rows_out.data_ptr(), torch.get_num_threads())
        return out, rows_out

    implement("parameter_norms", "cpu", "cpu", f"C++, {_C.active_isa()}", parameter_norms_cpu)
