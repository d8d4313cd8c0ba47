"""torch.addmm: y = beta b + alpha x W, the linear layer of GPT-2 among others."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from imbdyn.taps.parts import Broadcast, Part, Rows
from imbdyn.taps.registry import rule


@rule(torch.addmm, Tensor.addmm)
def addmm(
    dy: Tensor, input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Iterator[tuple[Tensor, Callable[[], Part]]]:
    """dL/dW = alpha sum_r x_r (outer) dy_r and dL/db = beta sum_r dy_r."""
    yield mat2, lambda: Rows(mat1, dy if alpha == 1 else alpha * dy, transposed=True)
    yield input, lambda: Broadcast(dy if beta == 1 else beta * dy, input.shape)
