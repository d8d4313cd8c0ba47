"""One Monitor a model, and none left open when the interpreter ends."""

from __future__ import annotations

import atexit
import os
import sys
from typing import Literal, Protocol
from weakref import WeakSet

from torch import nn

Status = Literal["finished", "interrupted", "failed"]


class _Closable(Protocol):
    def close(self, status: Status) -> None: ...


_claimed: WeakSet[nn.Module] = WeakSet()
_open: list[_Closable] = []


def claim(model: nn.Module) -> None:
    """Raise ValueError if a Monitor watches `model` already."""
    if model in _claimed:
        raise ValueError("this model has a Monitor already: close() the first one before making a second")
    _claimed.add(model)


def opened(monitor: _Closable) -> None:
    """Close `monitor` at the end of the interpreter, unless it was closed before: an exception must lose nothing."""
    _open.append(monitor)


def closed(monitor: _Closable, model: nn.Module) -> None:
    """Forget a monitor that was closed, and give its model free."""
    _claimed.discard(model)
    if monitor in _open:
        _open.remove(monitor)


def status_of(error: BaseException | None) -> Status:
    """Return how a run ended that was left with `error`."""
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return "finished"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"


@atexit.register
def _close_all() -> None:
    error = getattr(sys, "last_value", None)  # set by the interpreter when it ends with an exception
    for monitor in tuple(_open):  # close() takes it out of the list
        monitor.close(status_of(error))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open.clear)  # a forked process has nothing to close: the trace is its parent's
