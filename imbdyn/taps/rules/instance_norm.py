"""F.instance_norm: y = weight * xhat + bias by channel, xhat normalised over each sample's pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch.nn.functional as F
from torch import Tensor

from imbdyn.taps.parts import Broadcast, ChannelStatistics, Normalised, Part
from imbdyn.taps.registry import rule


@rule(F.instance_norm)
def instance_norm(
    dy: Tensor,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Iterator[tuple[Tensor | None, Callable[[], Part]]]:
    """dL/dweight = sum of dy * xhat and dL/dbias = sum of dy, over samples and pixels of x [N, C, ...]."""
    mean, variance = (None, None) if use_input_stats else (running_mean, running_var)
    shape = (input.shape[1], *[1] * (input.dim() - 2))
    statistics = ChannelStatistics(input.shape[1], False, eps, mean, variance)

    def xhat() -> Tensor:
        return F.instance_norm(input, mean, variance, use_input_stats=use_input_stats, eps=eps)

    yield weight, lambda: Normalised(input, dy, statistics, shape, xhat)
    yield bias, lambda: Broadcast(dy, shape)
