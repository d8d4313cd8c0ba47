"""The rules: for each watched function, which rows make the gradient of each parameter that enters it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor


class Rows(NamedTuple):
    """What a parameter's gradient is made of: dL/dw = sum_nl grad_outputs[n, l] (outer) inputs[n, l]."""

    inputs: Tensor
    """[N, L, I]: what the parameter was multiplied with; L rows (tokens, pixels) of each sample."""
    grad_outputs: Tensor
    """[N, L, O]: dL/d(output) of the same rows."""


def sample_gradients(gradient: Tensor) -> Rows:
    """Return the rows of a parameter whose gradient is a plain sum over samples of `gradient` [N, *parameter.shape]."""
    return Rows(gradient.new_ones(gradient.shape[0], 1, 1), gradient.flatten(1)[:, None])


class NotCovered(Exception):  # noqa: N818 - it says what is the case, and is never an error of the user's
    """Raised by a rule for a use of its function that it cannot read; the message says what it cannot read."""


#: A rule yields each tensor argument that may be a parameter, with the function from the output's gradient to its rows.
Rule = Callable[..., Iterator[tuple[Tensor | None, Callable[[Tensor], Rows]]]]

RULES: dict[Callable[..., Any], Rule] = {}

_R = TypeVar("_R", bound=Rule)


def rule(function: Callable[..., Any]) -> Callable[[_R], _R]:
    """Register the rule of a torch function, e.g. `@imbdyn.taps.rule(F.linear)`.

    The rule has the watched function's own signature and is called in the forward pass with its arguments. For each
    argument that may be a parameter it yields `(argument, rows)`, where `rows(grad_output)` is called in the backward
    pass and returns `Rows`, whose first dimension is the batch. It raises `NotCovered` for what it cannot read.
    """

    def register(function_rule: _R) -> _R:
        RULES[function] = function_rule
        return function_rule

    return register


@cache
def function_name(function: Callable[..., Any]) -> str:
    """Return the name of a torch function as users know it, for example `torch.nn.functional.linear`."""
    name: str = torch.overrides.resolve_name(function) or getattr(function, "__qualname__", repr(function))
    return name
