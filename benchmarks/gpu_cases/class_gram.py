"""class_gram beside the weight gradient that torch makes of the same rows, which is what nobody can do without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from gpu_cases import Case
from torch import Tensor

from imbdyn.ops.class_gram.order import class_order
from imbdyn.ops.class_gram.triton import class_gram_conv_triton, rows_gram
from imbdyn.ops.class_gram.triton_choice import Forced, GradientConfig, Norms
from imbdyn.ops.class_gram.triton_convolution import rows_operand
from imbdyn.ops.class_gram.triton_problem import Problem


class _Gradients(Problem):
    """Without the inner products of the chunks' gradients."""

    def _add_slots(self, *_: object) -> None:
        pass


def _labels(samples: int, classes: int, present: int | None = None) -> Tensor:
    random = torch.Generator().manual_seed(0)
    found = torch.randint(0, present or classes, (samples,), generator=random)
    return (found * (classes // (present or classes))).cuda()


def _configs(kind: str, forced: Mapping[str, Forced], run: Callable[..., object]) -> dict[str, Callable[[], object]]:
    return {f"config {kind}{name}": partial(run, forced=choice) for name, choice in forced.items()}


def rows_case(
    samples: int,
    length: int,
    inputs: int,
    outputs: int,
    classes: int,
    *,
    present: int | None = None,
    norms: bool = True,
    dtype: torch.dtype = torch.bfloat16,
    bias: bool = False,
    target: float | None = None,
    forced: Mapping[str, Forced] | None = None,
) -> Case:
    a = torch.randn(samples, length, inputs, device="cuda", dtype=dtype) if inputs > 1 else None
    a = torch.ones(1, 1, 1, device="cuda", dtype=dtype).expand(samples, length, 1) if a is None else a
    d = torch.randn(samples, length, outputs, device="cuda", dtype=dtype) / outputs
    y = _labels(samples, classes, present)

    def run(forced: Forced = Forced()) -> object:  # noqa: B008 - a constant
        return rows_gram(a, d, y, classes, None, -100, norms, bias=bias, forced=forced)

    def gradients() -> None:
        operands = rows_operand(a), rows_operand(d)
        _Gradients(*operands, length, class_order(y, classes, -100), False, False, forced=Forced("direct")).run()

    flat_a, flat_d = a.flatten(0, 1), d.flatten(0, 1)
    others: dict[str, Callable[[], object]] = {"weight gradient": lambda: flat_d.T @ flat_a}
    if length * samples > 4096 and inputs > 1:
        others["gradients only"] = gradients
    element = a.element_size()
    rows = samples * length
    return Case(
        run,
        others | _configs("", forced or {}, run),
        rows * ((inputs if inputs > 1 else 0) + outputs) * element + 8 * classes * (classes + 1),
        2 * rows * inputs * outputs,
        target,
        "weight gradient" if target else None,
    )


def convolution_case(
    images: int,
    channels: int,
    outputs: int,
    size: int,
    kernel: int,
    step: int = 1,
    classes: int = 10,
    norms: bool = True,
    forced: Mapping[str, Forced] | None = None,
) -> Case:
    pad = kernel // 2
    out = (size + 2 * pad - kernel) // step + 1
    last = {"device": "cuda", "dtype": torch.bfloat16, "memory_format": torch.channels_last}
    x = torch.empty(images, channels, size, size, **last).normal_()  # type: ignore[call-overload]
    d = torch.empty(images, outputs, out, out, **last).normal_()  # type: ignore[call-overload]
    weight = torch.empty(outputs, channels, kernel, kernel, **last)  # type: ignore[call-overload]
    y = _labels(images, classes)
    numbers = ([kernel] * 2, [step] * 2, [pad] * 2, [1, 1], 1)

    def run(forced: Forced = Forced()) -> object:  # noqa: B008 - a constant
        return class_gram_conv_triton(x, d, y, classes, *numbers, -100, norms, forced=forced)

    def weight_gradient() -> object:
        return torch.ops.aten.convolution_backward(
            d, x, weight, None, [step] * 2, [pad] * 2, [1, 1], False, [0, 0], 1, [False, True, False]
        )

    return Case(
        run,
        {"weight gradient": weight_gradient} | _configs("", forced or {}, run),
        2 * (x.numel() + d.numel()) + 8 * classes * (classes + 1),
        2 * d.numel() * channels * kernel * kernel,
        None,
        "weight gradient",
    )


def _gradient(*numbers: int, norms: Norms | None = None, parts: int | None = None) -> Forced:
    return Forced("direct", norms, gradient=GradientConfig(*numbers), parts=parts)


_ROWS = {"128x128x64 w4 s5": _gradient(128, 128, 64, 4, 5)}
_NORMS = {
    "in loop 128x64x32 w4 s7": _gradient(128, 64, 32, 4, 7, norms=Norms.IN_LOOP),
    "in loop 128x128x32 w8 s7": _gradient(128, 128, 32, 8, 7, norms=Norms.IN_LOOP),
}
_NARROW = {"by slot 64x64x64 w4 s4": _gradient(64, 64, 64, 4, 4, norms=Norms.BY_SLOT)}
_IMAGES = {
    "by slot 128x128x64 w4 s3": _gradient(128, 128, 64, 4, 3, norms=Norms.BY_SLOT),
    "in loop": Forced("direct", Norms.IN_LOOP),
}

CASES: dict[str, Callable[[], Case]] = {
    "R 128x197, I 768, O 3072, C 10": partial(
        rows_case, 128, 197, 768, 3072, 10, norms=False, target=1.15, forced=_ROWS
    ),
    "R 128x197, I 768, O 3072, C 10, norms": partial(rows_case, 128, 197, 768, 3072, 10, target=1.15, forced=_NORMS),
    "R 128x197, I 768, O 768, C 10, norms": partial(rows_case, 128, 197, 768, 768, 10, bias=True),
    "R 128x197, I 768, O 3072, C 100": partial(rows_case, 128, 197, 768, 3072, 100, norms=False),
    "R 128x197, I 768, O 3072, C 1000 of which 128": partial(
        rows_case, 128, 197, 768, 3072, 1000, present=128, norms=False
    ),
    "R 65536, I 1024, O 1024, C 10": partial(
        rows_case,
        65536,
        1,
        1024,
        1024,
        10,
        norms=False,
        target=1.15,
    ),
    "R 65536, I 1024, O 1024, C 10, norms": partial(rows_case, 65536, 1, 1024, 1024, 10, target=1.15),
    "R 65536, I 1024, O 1024, C 100": partial(rows_case, 65536, 1, 1024, 1024, 100, norms=False),
    "R 128, I 2048, O 1000, C 10, linear": partial(rows_case, 128, 1, 2048, 1000, 10, bias=True),
    "R 128, I 2048, O 1000, C 1000, linear": partial(rows_case, 128, 1, 2048, 1000, 1000, bias=True),
    "R 128, O 768, C 10, bias": partial(rows_case, 128, 1, 1, 768, 10),
    "R 1024, I 1024, O 1024, C 10": partial(rows_case, 1024, 1, 1024, 1024, 10),
    "R 16384, I 1024, O 1024, C 10, float32": partial(
        rows_case, 16384, 1, 1024, 1024, 10, norms=False, dtype=torch.float32
    ),
    "conv 3x3 64 to 64, 56": partial(convolution_case, 128, 64, 64, 56, 3, forced=_NARROW),
    "conv 3x3 128 to 128, 28": partial(convolution_case, 128, 128, 128, 28, 3, forced=_IMAGES),
    "conv 3x3 256 to 256, 14": partial(convolution_case, 128, 256, 256, 14, 3, forced=_IMAGES),
    "conv 3x3 512 to 512, 7": partial(convolution_case, 128, 512, 512, 7, 3),
    "conv 1x1 256 to 64, 56": partial(convolution_case, 128, 256, 64, 56, 1),
    "conv 1x1 1024 to 256, 14": partial(convolution_case, 128, 1024, 256, 14, 1),
    "conv 1x1 512 to 2048, 7": partial(convolution_case, 128, 512, 2048, 7, 1),
    "conv 1x1 step 2 256 to 512, 56": partial(convolution_case, 128, 256, 512, 56, 1, 2),
    "conv 7x7 step 2 3 to 64, 224": partial(convolution_case, 128, 3, 64, 224, 7, 2),
}
