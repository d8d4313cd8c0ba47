"""F.rms_norm: y = weight * xhat, xhat the input divided by the root of its mean square over the last dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor

from imbdyn.taps.registry import NotCovered, Rows, rule, sample_gradients


@rule(F.rms_norm)
def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Iterator[tuple[Tensor | None, Callable[[Tensor], Rows]]]:
    """dL/dweight = sum of dy * xhat over all dimensions that are not normalised."""
    if input.dim() <= len(normalized_shape):
        raise NotCovered("an input without a batch dimension")
    x = input.detach()
    between = tuple(range(1, x.dim() - len(normalized_shape)))

    def weight_rows(dy: Tensor) -> Rows:
        gradient = dy * F.rms_norm(x, normalized_shape, eps=eps)
        return sample_gradients(gradient.sum(between) if between else gradient)

    yield weight, weight_rows
