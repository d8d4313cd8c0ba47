"""F.batch_norm: y = weight * xhat + bias by channel, xhat the input normalised over the batch or by running statistics.

In training mode xhat of a sample depends on the whole batch. The class gradient is what flows through the rows of the
class: an exact partition of the step's gradient, but not the gradient of the class's loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from imbdyn.taps.registry import Rows, rule, sample_gradients


@rule(F.batch_norm)
def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Iterator[tuple[Tensor | None, Callable[[Tensor], Rows]]]:
    """dL/dweight = sum of dy * xhat and dL/dbias = sum of dy, over the pixels of each sample [N, C, ...]."""
    x = input.detach()
    # Copies: by the time of the backward pass another forward pass may have moved the running statistics.
    mean = None if training or running_mean is None else running_mean.clone()
    variance = None if training or running_var is None else running_var.clone()

    def by_sample(gradient: Tensor) -> Rows:
        return sample_gradients(gradient.flatten(2).sum(2) if gradient.dim() > 2 else gradient)

    def weight_rows(dy: Tensor) -> Rows:
        with torch.no_grad():
            return by_sample(dy * F.batch_norm(x, mean, variance, training=training, eps=eps))

    yield weight, weight_rows
    yield bias, by_sample
