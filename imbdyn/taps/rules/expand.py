"""expand and its kin: a parameter that is repeated for every sample, such as a class token or learned queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from imbdyn.taps.parts import Broadcast, Part
from imbdyn.taps.registry import rule


@rule(
    *(Tensor.expand, torch.broadcast_to, Tensor.broadcast_to, Tensor.expand_as, Tensor.repeat),
    values=False,
)
def expand(dy: Tensor, input: Tensor, *_sizes: Any, **_named: Any) -> Iterator[tuple[Tensor, Callable[[], Part]]]:
    """dL/dp = sum of dy over the dimensions that p was repeated in."""
    shape = (1,) * (dy.dim() - input.dim()) + tuple(input.shape)
    if all(size in (1, wide) for size, wide in zip(shape, dy.shape, strict=True)):  # else repeat repeats a whole
        yield input, lambda: Broadcast(dy, tuple(input.shape))
