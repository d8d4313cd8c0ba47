"""F.multi_head_attention_forward, which a mode sees as one function: its own code, run so that the mode sees inside.

The function begins by asking whether a mode is on, and hands itself over if so. Here it is torch's very code with that
one question answered by no: bit-identical by construction, whatever the version of torch.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch.nn.functional as F
from torch import Tensor


def _nobody_overrides(_tensors: Any) -> bool:
    return False


def _open() -> Callable[..., tuple[Tensor, Tensor | None]]:
    original: Any = F.multi_head_attention_forward
    opened = FunctionType(
        original.__code__, {**original.__globals__, "has_torch_function": _nobody_overrides}, original.__name__
    )
    opened.__defaults__, opened.__kwdefaults__ = original.__defaults__, original.__kwdefaults__
    return opened


in_the_open = _open()
