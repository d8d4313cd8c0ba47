"""F.layer_norm: y = weight * xhat + bias, xhat the input normalised over its last dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor

from imbdyn.taps.registry import NotCovered, Rows, rule, sample_gradients


@rule(F.layer_norm)
def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Iterator[tuple[Tensor | None, Callable[[Tensor], Rows]]]:
    """dL/dweight = sum of dy * xhat and dL/dbias = sum of dy, over all dimensions that are not normalised."""
    if input.dim() <= len(normalized_shape):
        raise NotCovered("an input without a batch dimension")
    x = input.detach()
    between = tuple(range(1, x.dim() - len(normalized_shape)))

    def summed(gradient: Tensor) -> Rows:
        return sample_gradients(gradient.sum(between) if between else gradient)

    # xhat from the input and its statistics: (y - bias) / weight has no digits left where weight is small
    yield weight, lambda dy: summed(dy * F.layer_norm(x, normalized_shape, eps=eps))
    yield bias, summed
