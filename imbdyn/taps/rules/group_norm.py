"""F.group_norm: y = weight * xhat + bias by channel, xhat the input normalised over groups of channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch.nn.functional as F
from torch import Tensor

from imbdyn.taps.parts import Broadcast, ChannelStatistics, Normalised, Part
from imbdyn.taps.registry import rule


@rule(F.group_norm)
def group_norm(
    dy: Tensor,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Iterator[tuple[Tensor | None, Callable[[], Part]]]:
    """dL/dweight = sum of dy * xhat and dL/dbias = sum of dy, over samples and pixels of x [N, C, ...]."""
    shape = (input.shape[1], *[1] * (input.dim() - 2))
    statistics = ChannelStatistics(num_groups, False, eps)
    yield weight, lambda: Normalised(input, dy, statistics, shape, lambda: F.group_norm(input, num_groups, eps=eps))
    yield bias, lambda: Broadcast(dy, shape)
