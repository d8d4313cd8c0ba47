"""The memory that imbdyn asks for in op tests: what nobody wrote is seen there, and what nobody may write."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from guard_zones import GuardZones


def _for_imbdyn(
    make: Callable[..., torch.Tensor], change: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[..., torch.Tensor]:
    """Return `make` with what it makes for imbdyn changed."""

    def make_changed(*args: Any, **kwargs: Any) -> torch.Tensor:
        tensor = make(*args, **kwargs)
        caller = sys._getframe(1)
        while caller.f_globals.get("__name__") == __name__ and caller.f_back is not None:
            caller = caller.f_back
        return change(tensor) if caller.f_globals.get("__name__", "").startswith("imbdyn") else tensor

    return make_changed


def _fill(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.fill_(torch.nan if tensor.dtype.is_floating_point else torch.iinfo(tensor.dtype).min)


@pytest.fixture(autouse=True)
def uninitialised_memory_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every uninitialised tensor that imbdyn makes is filled, so that an element nobody wrote is seen."""
    monkeypatch.setattr(torch, "empty", _for_imbdyn(torch.empty, _fill))
    monkeypatch.setattr(torch, "empty_like", _for_imbdyn(torch.empty_like, _fill))
    monkeypatch.setattr(torch.Tensor, "new_empty", _for_imbdyn(torch.Tensor.new_empty, _fill))


@pytest.fixture
def guard_zones(monkeypatch: pytest.MonkeyPatch, uninitialised_memory_is_nan: None) -> GuardZones:  # noqa: ARG001
    """Every result that imbdyn makes lies between guard zones."""
    zones = GuardZones()
    for name in ("empty", "zeros", "from_numpy"):
        monkeypatch.setattr(torch, name, _for_imbdyn(getattr(torch, name), zones.surround))
    return zones
