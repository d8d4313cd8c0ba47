"""The shapes in which the ops are measured on a GPU: a file a family, each with its `CASES`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Case(NamedTuple):
    """Functions of the same inputs, which lie on the GPU, and what the op cannot do without."""

    op: Callable[[], object]
    others: dict[str, Callable[[], object]]
    """What it stands beside, by name: plain torch, a library's product, its own other configurations."""
    bytes: int
    """That must move: each input once, each output once."""
    flops: int = 0
    target: float | None = None
    """Of the promise: the largest ratio to the time of `against`; for "copy" the least share of the bandwidth."""
    against: str | None = None
    """A name in `others`, or "copy": a device-to-device copy in the same run."""
