"""Where ops meet `torch.library`: one schema an op, one implementation a device, and a table that `imbdyn info` reads.

The low-level `Library` is used, not `custom_op`: a call through it costs a fifth (2 us against 11 us here).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

LIBRARY = torch.library.Library("imbdyn", "DEF")

#: Dispatch key under which an implementation that runs on every device is registered.
ANY_DEVICE = "CompositeExplicitAutograd"


@dataclass(frozen=True)
class Implementation:
    """One way to compute an op on one kind of device."""

    op: str
    name: str
    """`reference`, `portable` (plain torch), `cpu` (C++), `triton` or `cuda` (CUDA C++)."""
    device: str
    """`any`, `cpu` or `cuda`."""
    detail: str
    """What it is made of, for people: language, instruction set."""
    why_not: str | None = None
    """The reason this machine cannot use it; None when it serves."""


IMPLEMENTATIONS: list[Implementation] = []


def define(schema: str, fake: Callable[..., Any]) -> Any:
    """Give an op its schema and its fake implementation (shapes and dtypes only), which `torch.compile` needs.

    Returns the op, to be called: `torch.ops` would look for it, and choose it from its overloads, each time.
    """
    LIBRARY.define(schema)
    op = schema.split("(", 1)[0]
    torch.library.register_fake(f"imbdyn::{op}", fake, lib=LIBRARY)
    return getattr(torch.ops.imbdyn, op).default


def register(op: str, device: str, function: Callable[..., Any]) -> None:
    """Let `function` serve `op` on `device` without a line in the table: for a family's second op."""
    LIBRARY.impl(op, function, ANY_DEVICE if device == "any" else device.upper())


def implement(op: str, name: str, device: str, detail: str, function: Callable[..., Any]) -> None:
    """Let `function` serve `op` on `device`; a device's own implementation is preferred to one for `any` device."""
    register(op, device, function)
    IMPLEMENTATIONS.append(Implementation(op, name, device, detail))


def unavailable(op: str, name: str, device: str, detail: str, why_not: str) -> None:
    """Record that an implementation exists but cannot serve on this machine, and why."""
    IMPLEMENTATIONS.append(Implementation(op, name, device, detail, why_not))


def serving(op: str, device: str) -> Implementation:
    """Return the implementation that a call of `op` with tensors on `device` (`cpu` or `cuda`) runs.

    Raises:
        KeyError: if no op has that name.
    """
    ready = [i for i in IMPLEMENTATIONS if i.op == op and i.why_not is None and i.device in (device, "any")]
    if not ready:
        raise KeyError(f"no op {op!r}; the ops are {sorted({i.op for i in IMPLEMENTATIONS})}")
    return next((i for i in ready if i.device == device), ready[-1])
