"""F.embedding: y[n, l] = weight[input[n, l]]."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch.nn.functional as F
from torch import Tensor

from imbdyn.taps.registry import NotCovered, Rows, rule


@rule(F.embedding)
def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Iterator[tuple[Tensor | None, Callable[[Tensor], Rows]]]:
    """dL/dweight[v] = sum of dy over the places that hold v: a product with one-hot rows, but for `padding_idx`."""
    if max_norm is not None:
        raise NotCovered("max_norm, which changes the weight itself")
    if scale_grad_by_freq:
        raise NotCovered("scale_grad_by_freq")
    indices = input.detach().clone()
    batch = indices.shape[0]
    padding = None if padding_idx is None else padding_idx % weight.shape[0]

    def rows(dy: Tensor) -> Rows:
        # One-hot over the entries that occur in the batch, of which there are far fewer than in the vocabulary.
        occurring, place = indices.reshape(batch, -1).unique(return_inverse=True)
        one_hot = F.one_hot(place, len(occurring)).to(dy.dtype)
        if padding is not None:
            one_hot = one_hot * (occurring != padding)
        return Rows(one_hot, dy.reshape(batch, -1, dy.shape[-1]))

    yield weight, rows
