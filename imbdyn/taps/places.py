"""Where the gradient of a result can be seen: a hook on a view is not called where its base goes on without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Place(NamedTuple):
    """A tensor to hook, and how its gradient becomes that of the result."""

    tensor: Tensor
    cut: Callable[[Tensor], Tensor]


def place_of(result: Tensor, arguments: Any, *, in_place: bool) -> Place:
    """Return where the gradient of `result` is seen.

    F.linear returns a view of its product where the input has more than two dimensions. An in-place function that
    follows would give the view another history, and a hook on it would never be called; its base keeps the hook. So
    does the base of what was written to in place. The base of an argument, though, has other gradients too.
    """
    base = result._base
    if base is None or base.is_leaf or not base.requires_grad:
        return Place(result, _as_it_is)
    if not in_place and any(t is base or t._base is base for t in tensors_of(arguments)):
        return Place(result, _as_it_is)
    if base.numel() == result.numel() and base.is_contiguous() and result.is_contiguous():
        return Place(base, partial(_reshaped, result.shape))
    if in_place:
        offset = int(result.storage_offset() - base.storage_offset())
        return Place(base, partial(_part, base.shape, base.stride(), result.shape, result.stride(), offset))
    return Place(result, _as_it_is)


def tensors_of(values: Any) -> Iterator[Tensor]:
    """Yield the tensors among the arguments or results of a function."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        yield from tensors_of(tuple(values.values()))
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from tensors_of(value)


def _as_it_is(gradient: Tensor) -> Tensor:
    return gradient


def _reshaped(shape: torch.Size, gradient: Tensor) -> Tensor:
    return gradient.reshape(shape)


def _part(
    whole: torch.Size,
    strides: tuple[int, ...],
    shape: torch.Size,
    of_part: tuple[int, ...],
    offset: int,
    gradient: Tensor,
) -> Tensor:
    laid_out = torch.empty_strided(whole, strides, dtype=gradient.dtype, device=gradient.device)
    return laid_out.copy_(gradient).as_strided(shape, of_part, offset)
