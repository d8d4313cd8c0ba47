"""How the monitor learns of an optimizer's steps, and notices that it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_Arguments = tuple[tuple[Any, ...], dict[str, Any]]

#: So often must the weights have moved since the last step that was seen: once they do where a step looks at the loss
#: beside the weights (sharpness-aware minimisation), which comes as a batch of its own.
_MOVES = 2


class StepHooks:
    """Tells of each step once, however it is called.

    The gradients of a step may be made by the closure that it is given. They are there after its first call, if the
    weights have not moved since the step began. An optimizer that moves them first, or asks again elsewhere (a line
    search, SAM), leaves open which of the gradients it follows.

    A step may call the step of a parent class, which torch gives hooks of its own.

    Args:
        optimizer: whose steps they are.
        weights: called before a step with a closure; returns those that must not have moved when it has run.
        gradients: called when p.grad may be read, with whether it is what the step will apply: again after each
            further call of a closure.
        done: called after each step.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        weights: Callable[[], Iterable[Tensor]],
        gradients: Callable[[bool], None],
        done: Callable[[], None],
    ) -> None:
        self._weights = weights
        self._gradients = gradients
        self._done = done
        self._depth = 0
        self._in_closure = False
        # as zero_grad() does; before, a class that passes over Optimizer.__init__ (timm's Lookahead) has no hooks
        if not hasattr(optimizer, "_zero_grad_profile_name"):
            optimizer._patch_step_function()
        # torch.compile is kept out of them where it compiles the optimizer's step
        self._hooks = [
            optimizer.register_step_pre_hook(torch.compiler.disable(self._before)),
            optimizer.register_step_post_hook(torch.compiler.disable(self._after)),
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
        weights = list(self._weights())
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


class UnseenSteps:
    """Looks whether the weights of an optimizer move without a step of it that is seen.

    Asked only between batches without a step, as in accumulation: a loop of one batch a step pays nothing.
    """

    MESSAGE = (
        "no step of the optimizer that the Monitor was given is seen, and the weights move: give it the one whose "
        "step() is called, not a wrapper that goes past its own step() nor one that another has replaced"
    )

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._versions: list[int] | None = None
        self._moves = 0

    def seen(self) -> None:
        """Begin anew: a step came."""
        self._versions, self._moves = None, 0

    def are_there(self) -> bool:
        """Whether the weights have moved several times since the last step; to be asked before a further batch."""
        versions = [p._version for group in self._optimizer.param_groups for p in group["params"]]
        before, self._versions = self._versions or versions, versions
        # most of them: the forward pass itself may write to one (an embedding with max_norm)
        moved = sum(a != b for a, b in zip(before, versions, strict=False))
        self._moves += 2 * moved > len(versions)
        return self._moves >= _MOVES


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
