"""F.linear: y = x W^T + b."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch.nn.functional as F
from torch import Tensor

from imbdyn.taps.registry import NotCovered, Rows, rule, sample_gradients


@rule(F.linear)
def linear(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
) -> Iterator[tuple[Tensor | None, Callable[[Tensor], Rows]]]:
    """dL/dW = sum_r dy_r (outer) x_r and dL/db = sum_r dy_r, over all leading dimensions of x [N, ..., I]."""
    if input.dim() < 2:
        raise NotCovered("an input without a batch dimension")
    if weight.dim() != 2:
        raise NotCovered("a weight of one dimension")
    x = input.detach()

    def rows_first(t: Tensor) -> Tensor:
        return t[:, None] if t.dim() == 2 else t.flatten(1, -2)

    yield weight, lambda dy: Rows(rows_first(x), rows_first(dy))
    yield bias, lambda dy: sample_gradients(rows_first(dy).sum(1))
