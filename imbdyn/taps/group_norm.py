"""F.group_norm: y = weight * xhat + bias by channel, xhat the input normalised over groups of channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch.nn.functional as F
from torch import Tensor

from imbdyn.taps.registry import Rows, rule, sample_gradients


@rule(F.group_norm)
def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Iterator[tuple[Tensor | None, Callable[[Tensor], Rows]]]:
    """dL/dweight = sum of dy * xhat and dL/dbias = sum of dy, over the pixels of each sample [N, C, ...]."""
    x = input.detach()
    yield weight, lambda dy: sample_gradients((dy * F.group_norm(x, num_groups, eps=eps)).flatten(2).sum(2))
    yield bias, lambda dy: sample_gradients(dy.flatten(2).sum(2))
