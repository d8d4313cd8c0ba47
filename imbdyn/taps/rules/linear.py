"""F.linear: y = x W^T + b."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch.nn.functional as F
from torch import Tensor

from imbdyn.taps.parts import Broadcast, Part, Rows
from imbdyn.taps.registry import rule


@rule(F.linear)
def linear(
    dy: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Iterator[tuple[Tensor | None, Callable[[], Part]]]:
    """dL/dW = sum_r dy_r (outer) x_r and dL/db = sum_r dy_r, over all leading dimensions of x [..., I]."""
    yield weight, lambda: Rows(input, dy if weight.dim() == 2 else dy[..., None])
    if bias is not None:
        yield bias, lambda: Broadcast(dy, bias.shape)
