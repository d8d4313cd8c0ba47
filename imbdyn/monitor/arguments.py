"""What `Monitor` is given, checked before anything is made: a mistake leaves no folder behind."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn


def check_arguments(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    num_classes: int,
    out: str | os.PathLike[str],
    class_names: Sequence[str] | None,
    config: Mapping[str, Any] | None,
) -> None:
    """Raise TypeError or ValueError, in one sentence, for arguments that cannot be meant."""
    if not isinstance(model, nn.Module) or not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"Monitor(model, optimizer, ...) takes a module and an optimizer, got {type(model).__name__} and "
            f"{type(optimizer).__name__}"
        )
    if isinstance(num_classes, bool) or not isinstance(num_classes, int):
        raise TypeError(f"num_classes must be an int, got {num_classes!r}")
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes} (two classes need two logits)")
    if not isinstance(out, (str, os.PathLike)):
        raise TypeError(f"out must be a folder's path or a URI, got {out!r}")
    if class_names is not None:
        names = class_names if isinstance(class_names, Iterable) and not isinstance(class_names, str) else [None]
        if not all(isinstance(name, str) for name in names):
            raise TypeError(f"class_names must be a list of str, got {class_names!r}")
        if len(class_names) != num_classes:
            raise ValueError(f"class_names must have num_classes={num_classes} names, got {len(class_names)}")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError("LBFGS runs the model several times inside one step; imbdyn cannot tell its steps apart")
    if not hasattr(optimizer, "_optimizer_step_pre_hooks"):
        raise ValueError(
            f"{type(optimizer).__name__} wraps an optimizer and has no step hooks itself: give Monitor the one inside"
        )
    own = {id(p) for p in model.parameters()}
    if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
        raise ValueError("the optimizer holds no parameter of this model: its steps would say nothing about it")
    if config is not None and not isinstance(config, Mapping):
        raise TypeError(f"config must be a mapping of names to what JSON can hold, got {type(config).__name__}")
    for key, value in (config or {}).items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise type(error)(f"config[{key!r}] cannot be stored as JSON: {error}") from None
