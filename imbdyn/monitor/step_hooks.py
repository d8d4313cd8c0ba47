"""The hooks on the optimizer: when the gradients of a step are there, and when it has moved the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class StepHooks:
    """Tells of each step once, however it is called.

    The gradients of a step may be made by the closure that it is given. They are there after its first call, if the
    weights have not moved since the step began. An optimizer that moves them first, or asks again elsewhere (a line
    search, SAM), leaves open which of the gradients it follows.

    A step may call the step of a parent class, which torch gives hooks of its own.

    Args:
        optimizer: whose steps they are.
        moved: called before a step with a closure; returns the weights that must not have moved when it has run.
        gradients: called when p.grad may be read, with whether it is what the step will apply: again after each
            further call of a closure.
        done: called after each step.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        moved: Callable[[], Iterable[Tensor]],
        gradients: Callable[[bool], None],
        done: Callable[[], None],
    ) -> None:
        self._moved = moved
        self._gradients = gradients
        self._done = done
        self._depth = 0
        self._in_closure = False
        self._hooks = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]

    def remove(self) -> None:
        """Take the hooks away."""
        for hook in self._hooks:
            hook.remove()

    def batch_begins(self) -> None:
        """Forget a step that was left by an exception: a batch comes after it, or in the closure of another."""
        if not self._in_closure:
            self._depth = 0

    def _before(self, _optimizer: torch.optim.Optimizer, *arguments: Any) -> _Arguments | None:
        self._depth += 1
        if self._depth > 1:
            return None
        closure = _closure_of(arguments)
        if closure is None:
            self._gradients(True)
            return None
        return _with_closure(arguments, self._followed(closure))

    def _after(self, *_: Any) -> None:
        outermost = self._depth == 1
        self._depth = max(self._depth - 1, 0)
        if outermost:
            self._done()

    def _followed(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        weights = list(self._moved())
        versions = [weight._version for weight in weights]
        first = True

        def call() -> Any:
            nonlocal first
            self._in_closure = True
            try:
                loss = closure()
            except BaseException:
                self._depth = 0  # the step ends with it
                raise
            finally:
                self._in_closure = False
            self._gradients(first and versions == [weight._version for weight in weights])
            first = False
            return loss

        return call


def _closure_of(arguments: _Arguments) -> Callable[[], Any] | None:
    """Return the closure that `optimizer.step` was given; the first positional argument is the optimizer."""
    positional, named = arguments
    closure = positional[1] if len(positional) > 1 else named.get("closure")
    return closure if callable(closure) else None


def _with_closure(arguments: _Arguments, closure: Callable[[], Any]) -> _Arguments:
    positional, named = arguments
    if len(positional) > 1:
        return (positional[0], closure, *positional[2:]), named
    return positional, {**named, "closure": closure}
