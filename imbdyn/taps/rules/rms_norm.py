"""F.rms_norm: y = weight * xhat, xhat the input divided by the root of its mean square over the last dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from imbdyn.taps.parts import Broadcast, Normalised, Part, RowStatistics
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

    def xhat() -> Tensor:
        return F.rms_norm(input, shape, eps=eps)

    def weight_part() -> Part:
        if eps is None and input.element_size() < 4:  # of which type it is then differs between releases of torch
            return Broadcast(dy * xhat(), shape)
        statistics = RowStatistics(False, torch.finfo(input.dtype).eps if eps is None else eps)
        return Normalised(input, dy, statistics, shape, xhat)

    yield weight, weight_part
