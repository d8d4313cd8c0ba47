"""F.batch_norm: y = weight * xhat + bias by channel, xhat the input normalised over the batch or by running statistics.

In training mode xhat of a sample depends on the whole batch. The class gradient is what flows through the rows of the
class: an exact partition of the step's gradient, but not the gradient of the class's loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch.nn.functional as F
from torch import Tensor

from imbdyn.taps.parts import Broadcast, Part
from imbdyn.taps.registry import rule


@rule(F.batch_norm)
def batch_norm(
    dy: Tensor,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Iterator[tuple[Tensor | None, Callable[[], Part]]]:
    """dL/dweight = sum of dy * xhat and dL/dbias = sum of dy, over samples and pixels of x [N, C, ...]."""
    mean, variance = (None, None) if training else (running_mean, running_var)
    shape = (input.shape[1], *[1] * (input.dim() - 2))

    def weight_part() -> Broadcast:
        # xhat from the input and its statistics: (y - bias) / weight has no digits left where weight is small
        return Broadcast(dy * F.batch_norm(input, mean, variance, training=training, eps=eps), shape)

    yield weight, weight_part
    yield bias, lambda: Broadcast(dy, shape)
