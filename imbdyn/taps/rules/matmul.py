"""torch.matmul, @ and torch.mm with a parameter: y = x W, y = W x or y = x w."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from imbdyn.taps.parts import Part, Rows
from imbdyn.taps.registry import rule


@rule(torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm)
def matmul(dy: Tensor, input: Tensor, other: Tensor) -> Iterator[tuple[Tensor, Callable[[], Part]]]:
    """x [..., I] @ W [I, O]: dL/dW = sum_r x_r (outer) dy_r. W [O, I] @ x [..., I, T]: sum_rt dy_rt (outer) x_rt."""
    if other.dim() == 2 and input.dim() > 1:
        yield other, lambda: Rows(input, dy, transposed=True)
    if other.dim() == 1 and input.dim() > 1:
        yield other, lambda: Rows(input, dy[..., None])
    if input.dim() == 2 and other.dim() > 2:
        yield input, lambda: Rows(other.mT, dy.mT)


@rule(Tensor.__rmatmul__)
def rmatmul(dy: Tensor, input: Tensor, other: Tensor) -> Iterator[tuple[Tensor, Callable[[], Part]]]:
    """`other @ input`, as Python calls it for an `other` that knows no better."""
    yield from matmul(dy, other, input)
