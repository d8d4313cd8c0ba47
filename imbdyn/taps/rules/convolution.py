"""F.conv1d, F.conv2d, F.conv3d and their transposes, with any stride, padding, dilation and groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch.nn.functional as F
from torch import Tensor

from imbdyn.taps.parts import Broadcast, Convolution, Part
from imbdyn.taps.registry import rule

Sizes: TypeAlias = int | tuple[int, ...] | list[int]


@rule(F.conv1d, F.conv2d, F.conv3d)
def convolution(
    dy: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: str | Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Iterator[tuple[Tensor | None, Callable[[], Part]]]:
    """dL/dw[o, i, k] = sum over images u and places p of dy[u, o, p] x[u, i, p stride + k dilation - padding]."""
    kernel, dims = tuple(weight.shape[2:]), weight.dim() - 2
    if input.dim() != dims + 2:
        return  # one image without a batch
    strides, dilations = _sizes(stride, dims), _sizes(dilation, dims)
    pads = _padding(padding, kernel, dilations)
    yield weight, lambda: Convolution(input, dy, kernel, strides, pads, dilations, groups)
    if bias is not None:
        yield bias, lambda: Broadcast(dy, (bias.shape[0], *[1] * dims))


@rule(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
def conv_transpose(
    dy: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Iterator[tuple[Tensor | None, Callable[[], Part]]]:
    """The weight gradient of the convolution that leads back: x and dy in each other's place."""
    kernel, dims = tuple(weight.shape[2:]), weight.dim() - 2
    if input.dim() != dims + 2:
        return
    strides, dilations = _sizes(stride, dims), _sizes(dilation, dims)
    pads, whole = _padding(padding, kernel, dilations), dy
    for d, (extra, step) in enumerate(zip(_sizes(output_padding, dims), strides, strict=True)):
        if extra >= step:  # the convolution back would find room for one more place: what is beyond the last is cut off
            before, after = pads[d]
            pads = (*pads[:d], (before, max(after - extra, 0)), *pads[d + 1 :])
            dy = dy.narrow(2 + d, 0, dy.shape[2 + d] - max(extra - after, 0))
    yield weight, lambda: Convolution(dy, input, kernel, strides, pads, dilations, groups)
    if bias is not None:
        yield bias, lambda: Broadcast(whole, (bias.shape[0], *[1] * dims))


def _sizes(value: Sizes, dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value) * (dims if len(value) == 1 else 1)


def _padding(padding: str | Sizes, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Return the zeros (before, after) in each dimension; "same" puts an odd one at the end, as torch does."""
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple((t // 2, t - t // 2) for t in total)
    assert not isinstance(padding, str)
    return tuple((p, p) for p in _sizes(padding, len(kernel)))
