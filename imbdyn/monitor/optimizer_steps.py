"""How the monitor learns of an optimizer's steps, and notices that it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

#: So often must the weights have moved since the last step that was seen: once they do where a step looks at the loss
#: beside the weights (sharpness-aware minimisation), which comes as a batch of its own.
_MOVES = 2


def follow(
    optimizer: torch.optim.Optimizer,
    before: Callable[[torch.optim.Optimizer, Any, Any], None],
    after: Callable[[torch.optim.Optimizer, Any, Any], None],
) -> Callable[[], None]:
    """Call `before` and `after` around every step of `optimizer`; return the function that ends it."""
    # As zero_grad() does: step() has no hooks before, in classes that pass over Optimizer.__init__ (timm's Lookahead)
    if not hasattr(optimizer, "_zero_grad_profile_name"):
        optimizer._patch_step_function()
    # torch.compile is kept out of them where it compiles the optimizer's step
    hooks = [
        optimizer.register_step_pre_hook(torch.compiler.disable(before)),
        optimizer.register_step_post_hook(torch.compiler.disable(after)),
    ]

    def end() -> None:
        for hook in hooks:
            hook.remove()

    return end


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
