"""F.layer_norm: y = weight * xhat + bias, xhat the input normalised over its last dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor

from imbdyn.taps.parts import Broadcast, Normalised, Part, RowStatistics
from imbdyn.taps.registry import rule


@rule(F.layer_norm)
def layer_norm(
    dy: Tensor,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Iterator[tuple[Tensor | None, Callable[[], Part]]]:
    """dL/dweight = sum of dy * xhat and dL/dbias = sum of dy, over all dimensions that are not normalised."""
    shape = tuple(normalized_shape)
    statistics = RowStatistics(True, eps)
    yield weight, lambda: Normalised(input, dy, statistics, shape, lambda: F.layer_norm(input, shape, eps=eps))
    yield bias, lambda: Broadcast(dy, shape)
