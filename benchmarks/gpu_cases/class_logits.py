"""class_logits on a GPU: a training step's logits, many rows of few and of a thousand classes, very wide rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module

import torch
import torch.nn.functional as F
from gpu_cases import Case

from imbdyn.ops import _extension
from imbdyn.ops.class_logits.cuda import add_class_logits_cuda, takes

implementation = import_module("imbdyn.ops.class_logits.triton")

Config = tuple[int, int, int, int]  # group, classes, warps, programs of a multiprocessor


def configured(name: str, config: Config, run: Callable[[], object]) -> Callable[[], object]:
    """Return `run` with another configuration in the place of what the function `name` chooses."""

    def with_config() -> object:
        chosen = getattr(implementation, name)
        setattr(implementation, name, lambda *_: implementation.Config(*config))
        try:
            return run()
        finally:
            setattr(implementation, name, chosen)

    return with_config


def in_order(run: Callable[[], object]) -> object:
    torch.use_deterministic_algorithms(True)
    try:
        return run()
    finally:
        torch.use_deterministic_algorithms(False)


def case(
    rows: int,
    classes: int,
    dtype: torch.dtype,
    name: str = "",
    configs: tuple[Config, ...] = (),
    *,
    target: float | None = 0.85,
    majority: float = 0.0,
) -> Case:
    """add_class_logits; a share `majority` of the rows has label 0."""
    z = torch.randn(rows, classes, device="cuda", dtype=dtype)
    y = torch.randint(0, classes, (rows,), device="cuda")
    y[: int(majority * rows)] = 0
    y = y[torch.randperm(rows, device="cuda")]
    sums = torch.zeros(8, classes, device="cuda", dtype=torch.float64)

    def run() -> None:
        implementation.add_class_logits_triton(sums, z, y, -100)

    others: dict[str, Callable[[], object]] = {
        "F.cross_entropy": lambda: F.cross_entropy(z, y),
        "read (sum)": z.sum,
    }
    if target is None:  # not where it would take the others' time
        others["in one order"] = partial(in_order, run)
    if _extension.kernels is not None and _extension.kernels.has_cuda and takes(z):
        others["cuda"] = lambda: add_class_logits_cuda(sums, z, y, -100)
    others |= {f"config {config}": configured(name, config, run) for config in configs}
    return Case(run, others, z.nbytes + y.nbytes, target=target, against="copy" if target else None)


FEW = ((32, 16, 1, 8), (32, 16, 1, 12), (64, 16, 2, 8))
LONG = ((32, 1024, 2, 8), (64, 1024, 1, 8))
HUNDRED = ((8, 128, 1, 12), (16, 128, 4, 4))

#: A shape with a target is of half a gigabyte at least: launches and ends weigh a few per cent of a smaller one.
CASES: dict[str, Callable[[], Case]] = {
    "N 256, C 1000, float32 (a step)": lambda: case(256, 1000, torch.float32, target=None),
    "N 128, C 10, float32 (a step)": lambda: case(128, 10, torch.float32, target=None),
    "N 65536, C 1000, bfloat16": lambda: case(1 << 16, 1000, torch.bfloat16, target=None),
    "N 262144, C 1000, bfloat16": lambda: case(1 << 18, 1000, torch.bfloat16, "whole_config", LONG),
    "N 262144, C 1000, float32": lambda: case(1 << 18, 1000, torch.float32, "whole_config", LONG),
    "N 262144, C 1000, bfloat16, half of one class": lambda: case(1 << 18, 1000, torch.bfloat16, majority=0.5),
    "N 1048576, C 10, float32": lambda: case(1 << 20, 10, torch.float32, target=None),
    "N 16777216, C 10, float32": lambda: case(1 << 24, 10, torch.float32, "few_config", FEW),
    "N 33554432, C 10, bfloat16": lambda: case(1 << 25, 10, torch.bfloat16, "few_config", FEW),
    "N 1048576, C 100, bfloat16": lambda: case(1 << 20, 100, torch.bfloat16, target=None),
    "N 4194304, C 100, bfloat16": lambda: case(1 << 22, 100, torch.bfloat16, "whole_config", HUNDRED),
    "N 4194304, C 100, bfloat16, half of one class": lambda: case(1 << 22, 100, torch.bfloat16, majority=0.5),
    "N 2048, C 130000, bfloat16": lambda: case(2048, 130_000, torch.bfloat16),
    "N 2048, C 130000, float32": lambda: case(2048, 130_000, torch.float32),
}
