"""The one place that imports the compiled extension, and says why it is missing where it is."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import torch

#: The module imbdyn._C, or None.
kernels: ModuleType | None = None
#: Why `kernels` is None, in a sentence; empty where it is not.
why_missing = ""
try:
    kernels = import_module("imbdyn._C")
except ImportError as error:
    why_missing = f"the compiled extension imbdyn._C was not built or does not load ({error})"

#: The dtypes that the kernels read, as csrc/common/arrays.h numbers them.
ELEMENT_TYPES = {torch.float64: 0, torch.float32: 1, torch.bfloat16: 2, torch.float16: 3}


def element_type(name: str, dtype: torch.dtype) -> int:
    """Return the kernels' number for the dtype of the argument called `name`; TypeError if they do not read it."""
    number = ELEMENT_TYPES.get(dtype)
    if number is None:
        raise TypeError(f"{name} must be float64, float32, bfloat16 or float16, got {dtype}")
    return number
