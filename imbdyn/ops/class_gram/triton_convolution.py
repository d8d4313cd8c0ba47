"""Where a convolution's taps see its inputs, for the kernel of chunks' gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from imbdyn.ops.class_gram.waitless import windows


@dataclass(frozen=True)
class Geometry:
    """A convolution over two dimensions in one group; of one dimension, the first has size 1."""

    inputs: Tensor
    """[U, height, width, C]; the last stride is 1."""
    out: tuple[int, int]
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    columns: int
    """C times taps, the tap first."""

    @property
    def places(self) -> int:
        """Places of an image."""
        return self.out[0] * self.out[1]

    @property
    def channels(self) -> int:
        """Input channels."""
        return self.inputs.shape[3] if self.columns else 1

    @property
    def taps_x(self) -> int:
        """Taps along the last dimension."""
        return self.kernel_size[1]

    @property
    def aligned(self) -> int:
        """How many neighbouring elements may be read at once, a power of 2."""
        return math.gcd(16 // self.inputs.element_size(), self.channels, *self.inputs.stride()[:3])

    @property
    def pointwise(self) -> bool:
        """Whether rows of outputs see the same rows of inputs."""
        return self.kernel_size == self.stride == (1, 1) and self.padding == (0, 0) and self.places == self._seen()

    def _seen(self) -> int:
        return self.inputs.shape[1] * self.inputs.shape[2]

    @property
    def numbers(self) -> tuple[int, ...]:
        """Arguments of the kernel, from image_stride to x_dilation."""
        if not self.columns:
            return (0,) * 11
        return (
            *self.inputs.stride()[:3],
            *self.inputs.shape[1:3],
            *self.stride,
            *self.padding,
            *self.dilation,
        )


_NOWHERE = torch.empty(0, 0, 0, 0)
_NONE = Geometry(_NOWHERE, (0, 0), (1, 1), (1, 1), (0, 0), (1, 1), 0)


def no_geometry() -> Geometry:
    """Return what stands for a problem of rows."""
    return _NONE


def _two(numbers: list[int], first: int) -> tuple[int, int]:
    return (first, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])


def geometry_of(
    inputs: Tensor,
    grad_outputs: Tensor,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Geometry | None:
    """Return the geometry of a convolution in one group; None if it has three dimensions or more than 65535 places."""
    dimensions = inputs.dim() - 2
    if dimensions > 2 or max(grad_outputs.shape[2:]) >= 1 << 16:
        return None
    if dimensions == 1:
        inputs, grad_outputs = inputs[:, :, None], grad_outputs[:, :, None]
    last = inputs.permute(0, 2, 3, 1)
    if last.stride(3) != 1 and last.shape[3] > 1:
        last = last.contiguous()
    return Geometry(
        last,
        (grad_outputs.shape[2], grad_outputs.shape[3]),
        _two(kernel_size, 1),
        _two(stride, 1),
        _two(padding, 0),
        _two(dilation, 1),
        inputs.shape[1] * math.prod(kernel_size),
    )


def unfolded(inputs: Tensor, geometry: Geometry) -> Tensor:
    """Return what each place sees, [U, places, columns]: a copy as large as it says."""
    seen = windows(
        inputs.permute(0, 3, 1, 2), list(geometry.out), list(geometry.kernel_size), list(geometry.stride),
        list(geometry.padding), list(geometry.dilation),
    )  # fmt: skip
    return seen.reshape(len(inputs), geometry.places, geometry.columns)
