"""F.conv2d: y[n, o, p] = b[o] + sum_k w[o, k] x_p[n, k], x_p the patch of x under output pixel p."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from imbdyn.taps.registry import NotCovered, Rows, rule, sample_gradients


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _padding(padding: str | int | tuple[int, ...], kernel: tuple[int, int], dilation: tuple[int, int]) -> list[int]:
    """Return (left, right, top, bottom) as F.pad wants them; 'same' puts an odd pixel at the end, as torch does."""
    if padding == "valid":
        return [0, 0, 0, 0]
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return [total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2]
    assert not isinstance(padding, str)
    vertical, horizontal = _pair(padding)
    return [horizontal, horizontal, vertical, vertical]


@rule(F.conv2d)
def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: str | int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Iterator[tuple[Tensor | None, Callable[[Tensor], Rows]]]:
    """dL/dw = sum over samples and output pixels of dy (outer) patch; dL/db = sum of dy. Every pixel is a row."""
    if input.dim() != 4:
        raise NotCovered("an input without a batch dimension")
    if groups != 1:
        raise NotCovered(f"groups={groups}")
    x = input.detach()
    (kernel_h, kernel_w), (stride_h, stride_w), (dilation_h, dilation_w) = (
        weight.shape[2:],
        _pair(stride),
        _pair(dilation),
    )
    pad = _padding(padding, (kernel_h, kernel_w), (dilation_h, dilation_w))

    def weight_rows(dy: Tensor) -> Rows:
        # Channels last, so that a patch is copied in runs of C values: five times as fast as F.unfold here. The order
        # within a patch is then not that of the weight, which no inner product of class gradients sees.
        x_NHWC = F.pad(x.permute(0, 2, 3, 1), (0, 0, *pad))
        high, wide = (dy.shape[2] - 1) * stride_h + 1, (dy.shape[3] - 1) * stride_w + 1
        shifted = [
            x_NHWC[:, top : top + high : stride_h, left : left + wide : stride_w]
            for top in range(0, kernel_h * dilation_h, dilation_h)
            for left in range(0, kernel_w * dilation_w, dilation_w)
        ]
        return Rows(torch.cat(shifted, 3).flatten(1, 2), dy.permute(0, 2, 3, 1).flatten(1, 2))

    yield weight, weight_rows
    yield bias, lambda dy: sample_gradients(dy.sum((2, 3)))
