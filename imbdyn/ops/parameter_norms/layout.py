"""Making the three tensors of a parameter lie alike, so that a kernel can read them as one piece of memory each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from imbdyn.ops import _extension

#: What stands in the kernel's table for the element type of a tensor that was not given.
NOT_GIVEN = -1

#: In the place of the element type of a dtype that the kernel does not read.
_UNREAD = -2

Lists = Sequence[Sequence[Tensor | None]]


def lay_out_alike(lists: Lists, rows: int) -> tuple[Lists, list[list[int]]]:
    """Return params, grads and previous as kernels read them, and the element types of each.

    Equal elements are at equal places; copied is only what lies otherwise. Keep the result alive during the call.
    """
    # A list at a time, not a tensor at a time: with many small tensors these questions are what the call costs.
    types = [_types(tensors) for tensors in lists]
    given = [t for tensors in lists for t in tensors if t is not None]
    if any(_UNREAD in column for column in types) or not all(map(Tensor.is_contiguous, given)):
        triples = zip(*lists, strict=True)
        lists = list(zip(*(_alike(*triple, by_rows=i == rows) for i, triple in enumerate(triples)), strict=True))
        types = [_types(tensors) for tensors in lists]
    return lists, types


def _types(tensors: Sequence[Tensor | None]) -> list[int]:
    types = _extension.ELEMENT_TYPES
    return [NOT_GIVEN if t is None else types.get(t.dtype, _UNREAD) for t in tensors]


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


def _lie_alike(w: Tensor, grad: Tensor | None, old: Tensor | None) -> bool:
    """Return True if nothing has to be copied, for the layouts that networks have: quick, and False if in doubt."""
    strides = w.stride()
    return (
        (w.is_contiguous() or (w.dim() == 4 and w.is_contiguous(memory_format=torch.channels_last)))
        and (grad is None or grad.stride() == strides)
        and (old is None or old.stride() == strides)
        and all(t is None or t.dtype in _extension.ELEMENT_TYPES for t in (w, grad, old))
    )


def _alike(
    w: Tensor | None, grad: Tensor | None, old: Tensor | None, *, by_rows: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the three with equal elements at equal places of one piece of memory each, copied only where they differ.

    By rows that memory is in the order of the indices. What has a dtype that the kernel does not read becomes float64.
    """
    assert w is not None
    if not by_rows and _lie_alike(w, grad, old):
        return w, grad, old

    def readable(tensor: Tensor) -> Tensor:
        return tensor if tensor.dtype in _extension.ELEMENT_TYPES else tensor.double()

    w = readable(w)
    if by_rows or not _is_dense(w):
        w = w.contiguous()
    shape, strides, layout = w.shape, w.stride(), _dimensions(w)

    def like_w(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        tensor = readable(tensor)
        if _dimensions(tensor) == layout:
            return tensor
        return torch.empty_strided(shape, strides, dtype=tensor.dtype, device=tensor.device).copy_(tensor)

    return w, like_w(grad), like_w(old)
