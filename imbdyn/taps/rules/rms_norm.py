"""F.rms_norm: y = weight * xhat, xhat the input divided by the root of its mean square over the last dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor

from imbdyn.taps.parts import Broadcast, Part
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
    yield weight, lambda: Broadcast(dy * F.rms_norm(input, normalized_shape, eps=eps), tuple(normalized_shape))
