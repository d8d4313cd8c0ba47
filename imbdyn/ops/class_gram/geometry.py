"""What the shapes of samples and a convolution's numbers must fulfil, and where its padded input lies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: By spatial dimension: zeros on both sides, or before and after.
Padding = Sequence[int] | Sequence[tuple[int, int]]


def check_samples(inputs: Tensor, grad_outputs: Tensor, labels: Tensor, samples: Tensor | None) -> None:
    """Check inputs [S, L, I], grad_outputs [S, L, O] and labels [S].

    Raises:
        ValueError: if shapes disagree, or `samples` says again what the shapes say.
        TypeError: if the inputs are not floating or the labels not int64.
    """
    if grad_outputs.dim() != 3 or grad_outputs.shape[:2] != inputs.shape[:2]:
        raise ValueError(
            f"grad_outputs must be [S, L, O] with S and L as in inputs {tuple(inputs.shape)}, "
            f"got {tuple(grad_outputs.shape)}"
        )
    if not inputs.is_floating_point():
        raise TypeError(f"inputs must have a floating dtype, got {inputs.dtype}")
    if labels.dim() != 1 or labels.shape[0] != inputs.shape[0]:
        raise ValueError(f"labels must be [S] with S={inputs.shape[0]} as in inputs, got {tuple(labels.shape)}")
    if labels.dtype != torch.int64:
        raise TypeError(f"labels must be int64, got {labels.dtype}")
    if samples is not None:
        raise ValueError("samples must be None where inputs are [S, L, I]: their first dimension says the sample")


def as_rows(
    inputs: Tensor, grad_outputs: Tensor, labels: Tensor, samples: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return [S, L, ...] as inputs [R, I], grad_outputs [R, O], labels [R] and samples [R]; rows as they are."""
    if inputs.dim() == 2:
        return inputs, grad_outputs, labels, samples
    count, length = inputs.shape[:2]
    inputs, grad_outputs = inputs.flatten(0, 1), grad_outputs.flatten(0, 1)
    if length == 1:
        return inputs, grad_outputs, labels, None
    of_row = torch.arange(count, device=labels.device)[:, None].expand(count, length).flatten()
    return inputs, grad_outputs, labels[:, None].expand(count, length).flatten(), of_row


def check_convolution(
    inputs: Tensor,
    grad_outputs: Tensor,
    labels: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Padding,
    dilation: Sequence[int],
    groups: int,
) -> list[int]:
    """Return the padding before each dimension.

    Raises:
        ValueError: if shapes, geometry and groups do not fit together.
        TypeError: if the dtypes differ or are not floating.
    """
    dimensions = inputs.dim() - 2
    if dimensions not in (1, 2, 3):
        raise ValueError(f"inputs must be [U, C_in, *spatial] with 1 to 3 dimensions, got {tuple(inputs.shape)}")
    if grad_outputs.dim() != inputs.dim() or grad_outputs.shape[0] != inputs.shape[0]:
        raise ValueError(
            f"grad_outputs must be [U, C_out, *out] with U and as many dimensions as in inputs {tuple(inputs.shape)}, "
            f"got {tuple(grad_outputs.shape)}"
        )
    if not inputs.is_floating_point():
        raise TypeError(f"inputs must have a floating dtype, got {inputs.dtype}")
    if inputs.dtype != grad_outputs.dtype:
        raise TypeError(f"inputs and grad_outputs need one dtype, got {inputs.dtype} and {grad_outputs.dtype}")
    if labels.dtype != torch.int64:
        raise TypeError(f"labels must be int64, got {labels.dtype}")
    if labels.dim() != 1 or labels.shape[0] != inputs.shape[0]:
        raise ValueError(f"labels must be [U] with U={inputs.shape[0]} as in inputs, got {tuple(labels.shape)}")
    for name, numbers in (("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation)):
        if len(numbers) != dimensions or min(numbers) < 1:
            raise ValueError(f"{name} must have a positive number for each of {dimensions} dimensions, got {numbers}")
    if groups < 1 or inputs.shape[1] % groups or grad_outputs.shape[1] % groups:
        raise ValueError(
            f"groups must divide the channels, got {groups} for {inputs.shape[1]} and {grad_outputs.shape[1]}"
        )
    if len(padding) != dimensions:
        raise ValueError(f"padding must have a number or a pair for each of {dimensions} dimensions, got {padding}")
    pairs = [(p, p) if isinstance(p, int | torch.SymInt) else tuple(p) for p in padding]
    for d, (before, after) in enumerate(pairs):
        reach = inputs.shape[2 + d] + before + after - dilation[d] * (kernel_size[d] - 1) - 1
        most = reach // stride[d] + 1 if reach >= 0 else 0
        if grad_outputs.shape[2 + d] > most:
            raise ValueError(
                f"grad_outputs may have {most} places in dimension {2 + d}, got {grad_outputs.shape[2 + d]}: inputs "
                f"have {inputs.shape[2 + d]}, padding {(before, after)}, kernel_size {kernel_size[d]}, "
                f"stride {stride[d]}, dilation {dilation[d]}"
            )
    return [before for before, _ in pairs]


def reached(
    out: Sequence[int], kernel_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """Return the size of the padded input that places `out` reach, by dimension."""
    return [(o - 1) * s + (k - 1) * d + 1 for o, k, s, d in zip(out, kernel_size, stride, dilation, strict=True)]


def pad_reached(
    inputs: Tensor,
    out: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    before: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """Return inputs [U, C, *spatial] with `before` zeros in front, and cut or padded behind to what `out` reaches."""
    used = reached(out, kernel_size, stride, dilation)
    sides: list[int] = []
    for size, n, b in zip(inputs.shape[2:], used, before, strict=True):
        sides = [b, max(0, n - b - size), *sides]
    padded = torch.nn.functional.pad(inputs, sides)
    for d, n in enumerate(used):
        padded = padded.narrow(2 + d, 0, n)
    return padded
