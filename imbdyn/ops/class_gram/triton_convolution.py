"""Where the rows of an operand lie, and what a convolution's taps see: numbers only, no tensor is touched.

Everything here is called for every layer of a sampled step, and a call to torch takes the host microseconds.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Operand(NamedTuple):
    """Rows [S, L, columns] of which the columns are neighbours."""

    tensor: Tensor
    """Where they start."""
    sample: int
    """Elements from one sample to the next."""
    row: int
    """Elements from one row of a sample to the next."""
    columns: int

    @property
    def aligned(self) -> int:
        """How many neighbouring elements may be read at once, a power of 2 of at most 16 bytes."""
        return math.gcd(16 // self.tensor.element_size(), self.columns, self.sample, self.row)


class Geometry(NamedTuple):
    """A convolution over two dimensions in one group; of one dimension, the first has size 1."""

    numbers: tuple[int, ...]
    """Arguments of the kernel, from y_stride to x_dilation."""
    channels: int
    """Of the inputs; 0: rows."""
    taps_x: int
    out_x: int
    columns: int
    """Channels times taps, the tap first."""


#: What stands for rows.
ROWS = Geometry((0,) * 10, 0, 1, 1, 0)


def rows_operand(t: Tensor) -> Operand:
    """Return [S, L, D] or [S, D] as an operand; copied if its columns are no neighbours."""
    if t.stride(-1) != 1 and t.shape[-1] != 1:
        t = t.contiguous()
    strides = t.stride()
    return Operand(t, strides[0], strides[1] if len(strides) == 3 else strides[0], t.shape[-1])


def channels_last(t: Tensor) -> Tensor:
    """Return images [U, C, *spatial] whose channels are neighbours, a copy if they are not."""
    if t.stride(1) == 1 or t.shape[1] == 1:
        return t
    if t.dim() == 4:
        return t.contiguous(memory_format=torch.channels_last)
    return t.movedim(1, -1).contiguous().movedim(-1, 1)


def _plane(t: Tensor) -> tuple[int, int, int, int]:
    """Return height, width and their strides."""
    if t.dim() == 3:
        return 1, t.shape[2], 0, t.stride(2)
    return t.shape[2], t.shape[3], t.stride(2), t.stride(3)


def even_rows(t: Tensor) -> Operand | None:
    """Return the places of images [U, C, *spatial] as rows; None if they do not lie evenly."""
    height, width, y_stride, x_stride = _plane(t)
    row = x_stride if width > 1 else y_stride
    if width > 1 and height > 1 and y_stride != width * x_stride:
        return None
    return Operand(t, t.stride(0), row, t.shape[1])


def geometry_of(
    inputs: Tensor,
    grad_outputs: Tensor,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Geometry | None:
    """Return the geometry of a convolution in one group; None if it has three dimensions or huge images."""
    if inputs.dim() > 4:
        return None
    height, width, y_stride, x_stride = _plane(inputs)
    if _span(inputs) >= 1 << 31 or _span(grad_outputs) >= 1 << 31:
        return None
    one = inputs.dim() == 3
    steps = [
        (first, *numbers) if one else tuple(numbers) for first, numbers in ((1, stride), (0, padding), (1, dilation))
    ]
    return Geometry(
        (y_stride, x_stride, height, width, *steps[0], *steps[1], *steps[2]),
        inputs.shape[1],
        kernel_size[-1],
        grad_outputs.shape[-1],
        inputs.shape[1] * math.prod(kernel_size),
    )


def _span(t: Tensor) -> int:
    return sum((n - 1) * step for n, step in zip(t.shape[1:], t.stride()[1:], strict=True))
