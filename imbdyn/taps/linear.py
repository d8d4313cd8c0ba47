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
    x = input.detach()
    batch = x.shape[0]
    yield weight, lambda dy: Rows(x.reshape(batch, -1, x.shape[-1]), dy.reshape(batch, -1, dy.shape[-1]))
    yield bias, lambda dy: sample_gradients(dy.reshape(batch, -1, dy.shape[-1]).sum(1))
