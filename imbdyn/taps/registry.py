"""The rules: what the gradient of each parameter that enters a watched function is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from imbdyn.taps.parts import Part


class NotCovered(Exception):  # noqa: N818 - it says what is the case, and is never an error of the user's
    """Raised by a rule for a use of its function that it cannot read; the message says what it cannot read."""


#: A rule takes dL/d(result) and the function's own arguments, and yields an argument with what its gradient is made of.
RuleFunction = Callable[..., Iterator[tuple[Tensor | None, Callable[[], Part]]]]


@dataclass(frozen=True)
class Rule:
    """A rule and what it needs to be called."""

    function: RuleFunction
    values: bool
    """Whether it reads its other arguments; where not, they are not kept until the backward pass and come as None."""
    unread: Callable[..., int] | None = None
    """Given a call's arguments, returns how many of those after the first it does not read: they come as None too."""


RULES: dict[Callable[..., Any], Rule] = {}

_R = TypeVar("_R", bound=RuleFunction)


def rule(*functions: Callable[..., Any], values: bool = True) -> Callable[[_R], _R]:
    """Register the rule of one or more torch functions, e.g. `@imbdyn.taps.rule(F.linear)`.

    The rule is called in the backward pass, with the gradient of the function's result and the arguments of the call
    (detached; in place functions: as they were before). For each argument that may be a parameter it yields
    `(argument, part)`: `part()` is called only if the argument is a watched parameter (or computed from some), and
    returns what the gradient is made of: `Rows`, `Broadcast`, `Normalised`, `Lookup` or `Convolution`. An argument that
    it does not yield, and every function without a rule, is read by the definition of a class gradient: the function
    is run again and differentiated once a class, which is exact, but dear. Where that would be wrong it raises
    `NotCovered`.

    Args:
        functions: as a `TorchFunctionMode` sees them; `torch.add` and `torch.Tensor.add` are two.
        values: whether the rule reads the values of arguments other than parameters. Where it does not, they need not
            be kept in memory, and the rule gets None for them.
    """

    def register(function: _R) -> _R:
        for watched in functions:
            RULES[watched] = Rule(function, values)
        return function

    return register


@cache
def function_name(function: Callable[..., Any]) -> str:
    """Return the name of a torch function as users know it, for example `torch.nn.functional.linear`."""
    name: str = torch.overrides.resolve_name(function) or getattr(function, "__qualname__", repr(function))
    return name
