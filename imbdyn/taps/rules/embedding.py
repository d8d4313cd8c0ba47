"""F.embedding: y[..., :] = weight[input[...]]."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch.nn.functional as F
from torch import Tensor

from imbdyn.taps.parts import Lookup, Part
from imbdyn.taps.registry import NotCovered, rule


@rule(F.embedding)
def embedding(
    dy: Tensor,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Iterator[tuple[Tensor | None, Callable[[], Part]]]:
    """dL/dweight[v] = sum of dy over the places that hold v, but for `padding_idx`."""
    if max_norm is not None:
        raise NotCovered("max_norm, which changes the weight itself")
    if scale_grad_by_freq:
        return
    indices = input
    if padding_idx is not None:
        indices = input.masked_fill(input == padding_idx % weight.shape[0], -1)
    yield weight, lambda: Lookup(indices, dy, weight.shape[0])
