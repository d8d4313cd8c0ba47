"""F.embedding_bag: y[b] = sum or mean over the entries i of bag b of weight[i]."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from imbdyn.taps.parts import Lookup, Part
from imbdyn.taps.registry import NotCovered, rule


@rule(F.embedding_bag)
def embedding_bag(
    dy: Tensor,
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Iterator[tuple[Tensor | None, Callable[[], Part]]]:
    """dL/dweight[v] = sum of dy[b] over the entries of bags b that hold v, over the bag's length for mode "mean"."""
    if max_norm is not None:
        raise NotCovered("max_norm, which changes the weight itself")
    if mode == "max" or scale_grad_by_freq:
        return
    bag, place, entry = _places(input, offsets, dy.shape[0])
    indices = input.reshape(-1)
    if padding_idx is not None:
        indices = indices.masked_fill(indices == padding_idx % weight.shape[0], -1)

    def part() -> Lookup:
        of_longest = int(place.max()) + 1 if offsets is not None and place.numel() else 0  # waits, on a GPU
        length = input.shape[1] if offsets is None else of_longest
        bags = indices.new_full((dy.shape[0], length), -1)
        bags[bag, place] = indices[entry]
        factor = dy.new_zeros(dy.shape[0], length)
        factor[bag, place] = 1.0 if per_sample_weights is None else per_sample_weights.reshape(-1)[entry].to(dy.dtype)
        if mode == "mean":
            factor = factor / (bags >= 0).sum(1, keepdim=True).clamp(min=1)
        return Lookup(bags, dy[:, None] * factor[..., None], weight.shape[0])

    yield weight, part


def _places(input: Tensor, offsets: Tensor | None, bags: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the bag and the place in it of each entry that is in a bag, and the entry's number in `input`."""
    entry = torch.arange(input.numel(), device=input.device)
    if offsets is None:
        return entry // input.shape[1], entry % input.shape[1], entry
    starts = offsets[:bags]  # with include_last_offset one more follows, which is the end
    end = input.numel() if offsets.numel() == bags else int(offsets[bags])
    entry = entry[(entry < end) & (entry >= (starts[0] if bags else 0))]
    bag = torch.searchsorted(starts.contiguous(), entry, right=True) - 1
    return bag, entry - starts[bag], entry
