"""F.batch_norm: y = weight * xhat + bias by channel, xhat the input normalised over the batch or by running statistics.

In training mode xhat of a sample depends on the whole batch. The class gradient is what flows through the rows of the
class: an exact partition of the step's gradient, but not the gradient of the class's loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from imbdyn.taps.parts import Broadcast, ChannelStatistics, Normalised, Part
from imbdyn.taps.registry import RULES, rule


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
    statistics = ChannelStatistics(input.shape[1], True, eps, mean, variance)

    def xhat() -> Tensor:  # from the input: (y - bias) / weight has no digits left where weight is small
        return F.batch_norm(input, mean, variance, training=training, eps=eps)

    yield weight, lambda: Normalised(input, dy, statistics, shape, xhat)
    yield bias, lambda: Broadcast(dy, shape)


def _unread(*args: Any, training: bool = False, **_named: Any) -> int:
    """Running statistics are not read in training, where keeping them means copies: the function writes to them."""
    return 2 if len(args) > 2 and (args[5] if len(args) > 5 else training) else 0


RULES[F.batch_norm] = replace(RULES[F.batch_norm], unread=_unread)
