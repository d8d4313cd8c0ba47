"""During op tests every uninitialised tensor that imbdyn makes is filled, so that an element nobody wrote is seen."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch


def _filled(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def make_filled(*args: Any, **kwargs: Any) -> torch.Tensor:
        tensor = make(*args, **kwargs)
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.startswith("imbdyn"):
            tensor.fill_(torch.nan if tensor.dtype.is_floating_point else torch.iinfo(tensor.dtype).min)
        return tensor

    return make_filled


@pytest.fixture(autouse=True)
def uninitialised_memory_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "empty", _filled(torch.empty))
    monkeypatch.setattr(torch, "empty_like", _filled(torch.empty_like))
    monkeypatch.setattr(torch.Tensor, "new_empty", _filled(torch.Tensor.new_empty))
