"""parameter_norms on a GPU over the shapes of real models, beside torch's own multi-tensor functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from gpu_cases import Case
from torch import Tensor

from imbdyn.ops import _extension
from imbdyn.ops.parameter_norms.cuda import parameter_norms_cuda
from imbdyn.ops.parameter_norms.triton import parameter_norms_triton


def resnet50() -> list[tuple[int, ...]]:
    """Shapes of the 161 parameters of ResNet-50: 25.6 million numbers."""
    shapes: list[tuple[int, ...]] = [(64, 3, 7, 7), (64,), (64,)]
    channels = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            for conv in ((width, channels, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)):
                shapes += [conv, conv[:1], conv[:1]]
            if block == 0:
                shapes += [(4 * width, channels, 1, 1), (4 * width,), (4 * width,)]
            channels = 4 * width
    return [*shapes, (1000, 2048), (1000,)]


def vit_l() -> list[tuple[int, ...]]:
    """Shapes of the parameters of ViT-L/16: 304 million numbers."""
    d = 1024
    block: list[tuple[int, ...]] = [
        *((d,), (d,), (3 * d, d), (3 * d,), (d, d), (d,)),
        *((d,), (d,), (4 * d, d), (4 * d,), (d, 4 * d), (d,)),
    ]
    return [(1, 1, d), (1, 197, d), (d, 3, 16, 16), (d,), *(24 * block), (d,), (d,), (1000, d), (1000,)]


def foreach(params: list[Tensor], grads: list[Tensor], previous: list[Tensor]) -> object:
    """Torch's multi-tensor functions, in the dtype of the tensors: nine reads and two writes instead of three reads."""
    change = torch._foreach_sub(params, previous)
    dots = [d.sum() for d in torch._foreach_mul(params, change)]
    return torch._foreach_norm(params), torch._foreach_norm(grads), torch._foreach_norm(change), dots


def case(shapes: list[tuple[int, ...]], dtype: torch.dtype, *, rows: bool, target: float | None = None) -> Case:
    params, grads, previous = ([torch.randn(shape, device="cuda").to(dtype) for shape in shapes] for _ in range(3))
    classifier = len(shapes) - 2 if rows else -1
    cuda = _extension.kernels is not None and _extension.kernels.has_cuda
    others: dict[str, Callable[[], object]] = {"torch._foreach": lambda: foreach(params, grads, previous)}
    if cuda:
        others["triton"] = lambda: parameter_norms_triton(params, grads, previous, classifier)
    serving = parameter_norms_cuda if cuda else parameter_norms_triton
    numbers = sum(t.numel() for t in params)
    return Case(
        op=lambda: serving(params, grads, previous, classifier),
        others=others,
        bytes=3 * numbers * dtype.itemsize + 32 * (len(shapes) + (shapes[classifier][0] if rows else 0)),
        flops=5 * numbers,
        target=target,
        against=None if target is None else "copy",
    )


CASES: dict[str, Callable[[], Case]] = {
    "ResNet-50 fp32": lambda: case(resnet50(), torch.float32, rows=True, target=0.85),
    "ResNet-50 bf16": lambda: case(resnet50(), torch.bfloat16, rows=True),
    "ViT-L fp32": lambda: case(vit_l(), torch.float32, rows=True, target=0.85),
    "ViT-L bf16": lambda: case(vit_l(), torch.bfloat16, rows=True, target=0.85),
    "classifier of 130000 rows fp32": partial(case, [(130_000, 512), (8,)], torch.float32, rows=True),
    "MLP of 10 small layers fp32": partial(case, [(256, 256), (256,)] * 10, torch.float32, rows=True),
}
