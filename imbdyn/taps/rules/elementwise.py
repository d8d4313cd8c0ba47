"""+, -, * and / with a parameter that is broadcast: biases, scales, position embeddings, hand-written norms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from imbdyn.taps.parts import Broadcast, Part
from imbdyn.taps.registry import rule

_Parts = Iterator[tuple[Tensor, Callable[[], Part]]]


def _forms(*names: str) -> list[Callable[..., Any]]:
    """Return a function as torch has it: free, method, in place, and what Python's operators call."""
    spelled = [spelling for n in names for spelling in (n, f"{n}_", f"__{n}__", f"__i{n}__")]
    found = [getattr(torch, name) for name in names] + [getattr(Tensor, s) for s in spelled if hasattr(Tensor, s)]
    return list(dict.fromkeys(found))


@rule(*_forms("add"), Tensor.__radd__, values=False)
def add(dy: Tensor, input: Tensor, other: Tensor, *, alpha: float = 1) -> _Parts:
    """y = a + alpha b: both gradients are dy, summed where the parameter was repeated."""
    yield input, lambda: Broadcast(dy, tuple(input.shape))
    yield other, lambda: Broadcast(dy if alpha == 1 else alpha * dy, tuple(other.shape))


@rule(*_forms("sub", "subtract"), values=False)
def sub(dy: Tensor, input: Tensor, other: Tensor, *, alpha: float = 1) -> _Parts:
    """y = a - alpha b."""
    yield input, lambda: Broadcast(dy, tuple(input.shape))
    yield other, lambda: Broadcast(-alpha * dy, tuple(other.shape))


@rule(Tensor.__rsub__, torch.rsub, values=False)
def rsub(dy: Tensor, input: Tensor, other: Tensor, *, alpha: float = 1) -> _Parts:
    """y = b - alpha a, as Python calls it for a `b` that knows no better."""
    yield from sub(dy, other, input, alpha=alpha)


@rule(*_forms("mul", "multiply"), Tensor.__rmul__)
def mul(dy: Tensor, input: Tensor, other: Tensor) -> _Parts:
    """y = a b: dL/da = dy b and dL/db = dy a."""
    yield input, lambda: Broadcast(dy * other, tuple(input.shape))
    yield other, lambda: Broadcast(dy * input, tuple(other.shape))


@rule(*_forms("div", "divide", "true_divide"), Tensor.__truediv__, Tensor.__itruediv__)
def div(dy: Tensor, input: Tensor, other: Tensor, *, rounding_mode: str | None = None) -> _Parts:
    """y = a / b: dL/da = dy / b and dL/db = -dy a / b^2. Rounded, y has no gradient."""
    if rounding_mode is None:
        yield input, lambda: Broadcast(dy / other, tuple(input.shape))
        yield other, lambda: Broadcast(-dy * input / other.square(), tuple(other.shape))
