"""What serves tensors on a GPU: implementations, offered in the order of preference and imported on the first call."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from imbdyn.ops import _extension
from imbdyn.ops._library import IMPLEMENTATIONS, Implementation, implement, register, unavailable
from imbdyn.ops._verified import VERIFIED

_MADE_OF = {"triton": "Triton", "cuda": "CUDA C++"}

#: IMBDYN_UNVERIFIED=1 lets implementations serve that no committed result shows right: to verify them, for one.
_UNVERIFIED_TOO = os.environ.get("IMBDYN_UNVERIFIED") == "1"


def offer(op: str, name: str, functions: Mapping[str, str]) -> None:
    """Let an implementation serve GPUs, if a committed result of one shows it right and none before it does.

    Args:
        op: the family, as `imbdyn info` names it.
        name: `triton` or `cuda`; the functions are in the module `imbdyn.ops.OP.NAME`.
        functions: name of each op of the family, to the name of the function that computes it; `FILE:NAME` where that
            is in another module of the family.
    """
    detail, why_not = _MADE_OF[name], _why_not(name)
    gpus = VERIFIED.get((op, name), ())
    if why_not is None and not gpus and not _UNVERIFIED_TOO:
        why_not = "unverified: no committed result of a real GPU shows it right (IMBDYN_UNVERIFIED=1 takes it)"
    if why_not is not None:
        unavailable(op, name, "cuda", detail, why_not)
        return
    detail += f", verified on {', '.join(gpus)}" if gpus else ", unverified"
    if any(i.op == op and i.device == "cuda" and i.why_not is None for i in IMPLEMENTATIONS):
        IMPLEMENTATIONS.append(Implementation(op, name, "cuda", detail))
        return
    for each, where in functions.items():
        file, _, function = where.rpartition(":")
        module = f"imbdyn.ops.{op}.{file or name}"
        if each == op:
            implement(op, name, "cuda", detail, imported_on_call(module, function))
        else:
            register(each, "cuda", imported_on_call(module, function))


def _why_not(name: str) -> str | None:
    """Return why this installation cannot have an implementation; None if it can."""
    if name == "triton":
        return None if find_spec("triton") is not None else "triton is not installed"
    if _extension.kernels is None:
        return _extension.why_missing
    if not _extension.kernels.has_cuda:
        return "built without CUDA (no nvcc, or IMBDYN_CUDA=0)"
    return None


def imported_on_call(module: str, name: str) -> Callable[..., Any]:
    """Return a function of a module that is imported when it is first called: Triton takes its time."""
    found: list[Callable[..., Any]] = []

    def call(*args: Any, **kwargs: Any) -> Any:
        if not found:
            found.append(getattr(import_module(module), name))
        return found[0](*args, **kwargs)

    return call
