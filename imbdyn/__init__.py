"""What each class does to a network while it trains on imbalanced data.

The public names are loaded when they are first used, so that `imbdyn --help` need not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imbdyn import ops, reference, taps
    from imbdyn.monitor import ImbdynWarning, Monitor
    from imbdyn.trace import Trace, open_trace

__version__ = "0.1.0"

__all__ = ["ImbdynWarning", "Monitor", "Trace", "open_trace", "ops", "reference", "taps"]

_HOME = {
    "ImbdynWarning": "imbdyn.monitor",
    "Monitor": "imbdyn.monitor",
    "Trace": "imbdyn.trace",
    "open_trace": "imbdyn.trace",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in __all__:
        return import_module(f"imbdyn.{name}")
    raise AttributeError(f"module 'imbdyn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
