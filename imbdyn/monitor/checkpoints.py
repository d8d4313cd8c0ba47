"""Re-entrant activation checkpoints on a watched step, where the mode must see what they hide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch.utils.checkpoint
from torch import Tensor


@contextmanager
def readable_checkpoints(*, learning: bool) -> Iterator[None]:
    """Let re-entrant checkpoints run as non-reentrant ones, or plainly while a model is learned.

    A re-entrant checkpoint runs its function without a graph, and again in the backward pass, where no mode is on; nor
    can anything be differentiated through it but by a whole backward pass. A non-reentrant one computes the same.
    """
    function = torch.utils.checkpoint.CheckpointFunction
    original = function.apply
    function.apply = partial(_apply, original, learning)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del function.apply  # inherited again


def _apply(original: Callable[..., Any], learning: bool, run: Callable[..., Any], preserve: bool, *args: Any) -> Any:
    if not any(isinstance(arg, Tensor) and arg.requires_grad for arg in args):
        return original(run, preserve, *args)  # gives no gradients at all, and must not start to
    if learning:
        return run(*args)
    return torch.utils.checkpoint.checkpoint(run, *args, use_reentrant=False, preserve_rng_state=preserve)
