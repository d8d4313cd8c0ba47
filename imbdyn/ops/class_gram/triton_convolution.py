"""Where the rows of an operand lie, and what a convolution's taps see: numbers that shapes and strides give."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor


class Lies(NamedTuple):
    """How rows [S, L, columns] lie, of which the columns are neighbours."""

    sample: int
    """Elements from one sample to the next."""
    row: int
    """Elements from one row of a sample to the next."""
    columns: int
    aligned: int
    """How many neighbouring elements may be read at once, a power of 2 of at most 16 bytes."""


def lies_of(sample: int, row: int, columns: int, element_size: int) -> Lies:
    """Return how rows of these steps lie."""
    return Lies(sample, row, columns, math.gcd(16 // element_size, columns, sample, row))


class Operand(NamedTuple):
    """Rows, and how they lie."""

    tensor: Tensor
    """Where they start."""
    lies: Lies

    @classmethod
    def of(cls, t: Tensor, sample: int, row: int, columns: int) -> Operand:
        """Return the operand of these steps."""
        return cls(t, lies_of(sample, row, columns, t.element_size()))


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
    return Operand.of(t, strides[0], strides[1] if len(strides) == 3 else strides[0], t.shape[-1])


def channels_last(t: Tensor) -> Tensor:
    """Return images [U, C, *spatial] whose channels are neighbours, a copy if they are not."""
    if t.stride(1) == 1 or t.shape[1] == 1:
        return t
    if t.dim() == 4:
        return t.contiguous(memory_format=torch.channels_last)
    return t.movedim(1, -1).contiguous().movedim(-1, 1)


class Images(NamedTuple):
    """What shapes and strides say of a convolution."""

    geometry: Geometry | None
    """None if it has three dimensions, or images so large that offsets in them pass 2^31."""
    grads: Lies | None
    """None if the places do not lie evenly."""
    rows: Lies | None
    """The inputs as rows, where each place sees one pixel: kernels of size 1 that step over none."""
    inputs: Lies
    places: int


@lru_cache(4096)
def images_of(
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    of_grads: tuple[int, ...],
    grad_strides: tuple[int, ...],
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    element_size: int,
) -> Images:
    """Return what the shapes and strides of inputs and output gradients say, at most two spatial dimensions."""
    same = sum(kernel_size) == sum(stride) == len(stride) and not any(padding) and shape[2:] == of_grads[2:]
    return Images(
        _geometry(shape, strides, of_grads, grad_strides, kernel_size, stride, padding, dilation),
        _even_rows(of_grads, grad_strides, element_size),
        _even_rows(shape, strides, element_size) if same else None,
        lies_of(strides[0], 0, shape[1], element_size),
        math.prod(of_grads[2:]),
    )


def _plane(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return height, width and their strides."""
    if len(shape) == 3:
        return 1, shape[2], 0, strides[2]
    return shape[2], shape[3], strides[2], strides[3]


def _even_rows(shape: tuple[int, ...], strides: tuple[int, ...], element_size: int) -> Lies | None:
    """Return how the places of images [U, C, *spatial] lie as rows; None if they do not lie evenly."""
    height, width, y_stride, x_stride = _plane(shape, strides)
    row = x_stride if width > 1 else y_stride
    if width > 1 and height > 1 and y_stride != width * x_stride:
        return None
    return lies_of(strides[0], row, shape[1], element_size)


def _geometry(
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    of_grads: tuple[int, ...],
    grad_strides: tuple[int, ...],
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Geometry | None:
    """Return the geometry of a convolution in one group; None if it has huge images."""
    height, width, y_stride, x_stride = _plane(shape, strides)
    if _span(shape, strides) >= 1 << 31 or _span(of_grads, grad_strides) >= 1 << 31:
        return None
    one = len(shape) == 3
    steps = [(first, *numbers) if one else numbers for first, numbers in ((1, stride), (0, padding), (1, dilation))]
    return Geometry(
        (y_stride, x_stride, height, width, *steps[0], *steps[1], *steps[2]),
        shape[1],
        kernel_size[-1],
        of_grads[-1],
        shape[1] * math.prod(kernel_size),
    )


def _span(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    return sum((n - 1) * step for n, step in zip(shape[1:], strides[1:], strict=True))
