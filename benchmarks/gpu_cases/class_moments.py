"""class_moments and add_class_moments on a GPU, beside what plain torch makes of it and other configurations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from gpu_cases import Case
from torch import Tensor

from imbdyn.ops import _extension
from imbdyn.ops.class_moments.cuda import add_class_moments_cuda, class_moments_cuda
from imbdyn.ops.class_moments.triton import Config, add_class_moments_triton, choose, class_moments_triton, moments


def index_add(x: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """The usual way, in two reads and with atomics: sums by index_add_, then squared deviations from the means."""
    count = torch.zeros(num_classes, dtype=torch.int64, device=x.device)
    count.scatter_add_(0, labels, torch.ones_like(labels))
    n = count.clamp(min=1)[:, None]
    mean = torch.zeros(num_classes, x.shape[1], device=x.device).index_add_(0, labels, x.float()) / n
    m2 = torch.zeros_like(mean).index_add_(0, labels, (x.float() - mean[labels]).square())
    return count, mean, m2


def configs(chosen: Config, columns: int, itemsize: int) -> list[Config]:
    """The committed list of Triton configurations, around the chosen one."""
    widest = max(16, 1 << (columns - 1).bit_length())
    found = []
    for elements, warps in ((4096, 4), (8192, 8)):
        width = min(widest, 2048 // itemsize)
        found += [Config(chosen.way, rows, (elements // width, width), warps) for rows in (256, 1024, 2048)]
    return [*(c for c in found if c != chosen), replace(chosen, way="sort")]


def case(
    rows: int,
    columns: int,
    num_classes: int,
    dtype: torch.dtype,
    *,
    add: bool = False,
    sweep: bool = False,
    skewed: bool = False,
    target: float | None = None,
) -> Case:
    random = torch.Generator("cuda").manual_seed(0)
    x = torch.randn(rows, columns, generator=random, device="cuda").to(dtype)
    uniform = torch.rand(rows, generator=random, device="cuda")
    labels = ((uniform**4 if skewed else uniform) * num_classes).long().clamp(max=num_classes - 1)
    present = int(labels.unique().numel())
    chosen = choose(rows, columns, num_classes, dtype)
    results = 2 * (2 * present if add else num_classes) * columns * 4
    ways: dict[str, Callable[[], object]] = {}
    held = class_moments_triton(x, labels, num_classes, -100) if add else None
    for name, fresh, added in (
        ("cuda", class_moments_cuda, add_class_moments_cuda),
        ("triton", class_moments_triton, add_class_moments_triton),
    ):
        if name == "cuda" and (_extension.kernels is None or not _extension.kernels.has_cuda):
            continue
        if held is None:
            ways[name] = partial(fresh, x, labels, num_classes, -100)
        else:
            ways[name] = partial(added, *held, x, labels, -100)
    op, *others_of = ways.values()
    others = dict(zip(list(ways)[1:], others_of, strict=True))
    if sweep:
        for config in configs(chosen, columns, dtype.itemsize):
            name = f"config {config.way} chunk {config.chunk_rows} tile {config.tile} warps {config.warps}"
            others[name] = partial(moments, x, labels, num_classes, -100, config)
        others["index_add_ in two reads"] = lambda: index_add(x, labels, num_classes)
    return Case(
        op=op,
        others=others,
        bytes=x.nbytes + labels.nbytes + num_classes * 8 + results,
        flops=3 * x.numel(),
        target=target,
        against=None if target is None else "copy",
    )


CASES: dict[str, Callable[[], Case]] = {
    "262144x2048 bf16, C 1000": partial(case, 262144, 2048, 1000, torch.bfloat16, sweep=True, target=0.85),
    "262144x2048 bf16, C 100": partial(case, 262144, 2048, 100, torch.bfloat16, target=0.85),
    "262144x2048 bf16, C 10, skewed": partial(case, 262144, 2048, 10, torch.bfloat16, skewed=True, target=0.85),
    "131072x2048 fp32, C 1000": partial(case, 131072, 2048, 1000, torch.float32, target=0.85),
    "65536x512 fp32, C 100": partial(case, 65536, 512, 100, torch.float32, sweep=True),
    "65536x512 fp32, C 10": partial(case, 65536, 512, 10, torch.float32),
    "65536x768 bf16, C 21843": partial(case, 65536, 768, 21843, torch.bfloat16),
    "8192x1024 bf16, C 130000, added": partial(case, 8192, 1024, 130_000, torch.bfloat16, add=True),
    "1024x2048 bf16, C 1000, added": partial(case, 1024, 2048, 1000, torch.bfloat16, add=True),
    "256x2048 fp32, C 10": partial(case, 256, 2048, 10, torch.float32),
    "256x512 fp32, C 100, added": partial(case, 256, 512, 100, torch.float32, add=True),
    "4096x384 bf16, C 10, added": partial(case, 4096, 384, 10, torch.bfloat16, add=True),
}
