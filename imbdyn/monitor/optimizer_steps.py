"""How the monitor learns of an optimizer's steps, and notices that it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

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
