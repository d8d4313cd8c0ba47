"""norm_gradients on a GPU: normalisations of ResNet-50 (N 128, 224 x 224) and ViT-B (N 128, 197 tokens)."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import torch
from gpu_cases import Case

from imbdyn.ops.norm_gradients.portable import norm_gradients_portable, norm_gradients_rows_portable

implementation = import_module("imbdyn.ops.norm_gradients.triton")
plan = import_module("imbdyn.ops.norm_gradients.triton_plan")

Config = tuple[int, int, int]


def forget_plans() -> None:
    plan.plan_channels.cache_clear()
    plan.plan_rows.cache_clear()


def configured(name: str, config: Config, run: Callable[[], object]) -> Callable[[], object]:
    """Return `run` with another configuration in the place of what the function `name` chooses."""

    def with_config() -> object:
        chosen = getattr(plan, name)
        setattr(plan, name, lambda *_: config)
        forget_plans()
        try:
            return run()
        finally:
            setattr(plan, name, chosen)
            forget_plans()

    return with_config


def channels(
    units: int, channels: int, places: int, *configs: Config, last: bool = False, groups: int = 0, given: bool = False
) -> Case:
    """BatchNorm, or GroupNorm; `last`: channels_last."""
    shape = (units, places, channels) if last else (units, channels, places)
    x, dy = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    if last:
        x, dy = x.mT, dy.mT
    statistics = (torch.zeros(channels, device="cuda"), torch.ones(channels, device="cuda")) if given else (None, None)
    arguments = (x, dy, groups or channels, not groups, *statistics, 1e-5)

    def run() -> object:
        return implementation.norm_gradients_triton(*arguments)

    others: dict[str, Callable[[], object]] = {"portable": lambda: norm_gradients_portable(*arguments)}
    others["read both (sum)"] = lambda: (x.sum(), dy.sum())
    name = "channels_config" if last else "places_config"
    others |= {f"config {config}": configured(name, config, run) for config in configs}
    return Case(run, others, 2 * x.nbytes, target=0.85, against="copy")


def rows(units: int, rows: int, columns: int, *configs: Config, centred: bool = True) -> Case:
    """LayerNorm, or RMSNorm."""
    x, dy = (torch.randn(units, rows, columns, device="cuda", dtype=torch.bfloat16) for _ in range(2))

    def run() -> object:
        return implementation.norm_gradients_rows_triton(x, dy, centred, 1e-5)

    others: dict[str, Callable[[], object]] = {"portable": lambda: norm_gradients_rows_portable(x, dy, centred, 1e-5)}
    others["read both (sum)"] = lambda: (x.sum(), dy.sum())
    others |= {f"config {config}": configured("rows_config", config, run) for config in configs}
    return Case(run, others, 2 * x.nbytes, target=0.85, against="copy")


#: channels at a time, places at a time, warps
LAST = ((64, 32, 2), (64, 32, 4))
#: rows at a time, columns rounded up, warps
ROWS = ((2, 1024, 4),)

CASES: dict[str, Callable[[], Case]] = {
    "BatchNorm 128 x 64 x 112^2": lambda: channels(128, 64, 112**2),
    "BatchNorm 128 x 256 x 56^2": lambda: channels(128, 256, 56**2),
    "BatchNorm 128 x 1024 x 14^2": lambda: channels(128, 1024, 14**2),
    "BatchNorm 128 x 2048 x 7^2": lambda: channels(128, 2048, 7**2),
    "BatchNorm 128 x 256 x 56^2, given statistics": lambda: channels(128, 256, 56**2, given=True),
    "GroupNorm 128 x 256 x 56^2, 32 groups": lambda: channels(128, 256, 56**2, groups=32),
    "BatchNorm 128 x 64 x 112^2, channels_last": lambda: channels(128, 64, 112**2, last=True),
    "BatchNorm 128 x 256 x 56^2, channels_last": lambda: channels(128, 256, 56**2, last=True),
    "BatchNorm 128 x 1024 x 14^2, channels_last": lambda: channels(128, 1024, 14**2, *LAST, last=True),
    "BatchNorm 128 x 2048 x 7^2, channels_last": lambda: channels(128, 2048, 7**2, last=True),
    "LayerNorm 128 x 197 x 768": lambda: rows(128, 197, 768, *ROWS),
    "RMSNorm 32 x 1024 x 4096": lambda: rows(32, 1024, 4096, centred=False),
}
