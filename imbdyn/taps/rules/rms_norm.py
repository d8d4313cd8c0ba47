"""F.rms_norm: y = weight * xhat, xhat the input divided by the root of its mean square over the last dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from imbdyn.taps.parts import Normalised, Part, RowStatistics
from imbdyn.taps.registry import rule


@rule(F.rms_norm)
def rms_norm(
    dy: Tensor,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Iterator[tuple[Tensor | None, Callable[[], Part]]]:
    """dL/dweight = sum of dy * xhat over all dimensions that are not normalised."""
    shape = tuple(normalized_shape)
    statistics = RowStatistics(False, torch.finfo(input.dtype).eps if eps is None else eps)
    yield weight, lambda: Normalised(input, dy, statistics, shape, lambda: F.rms_norm(input, shape, eps=eps))
