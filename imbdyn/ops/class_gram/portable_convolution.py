"""class_gram_conv in plain torch, on any device: each class's images through torch's own weight gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from imbdyn.ops._checks import check_labels
from imbdyn.ops.class_gram.geometry import pad_reached
from imbdyn.ops.class_gram.portable import SCRATCH, add_products


def weight_gradient(
    padded: Tensor,
    grad_outputs: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """Return a convolution's weight gradient [O, I / groups, *kernel_size], by torch's own routine.

    `padded` is the input [N, I, ...] with the zeros around it, `grad_outputs` [N, O, ...].
    """
    weight = padded.new_empty(grad_outputs.shape[1], padded.shape[1] // groups, *kernel_size)
    nothing = [0] * len(stride)
    gradient: Tensor = torch.ops.aten.convolution_backward(
        grad_outputs, padded, weight, None, stride, nothing, dilation, False, nothing, groups, [False, True, False]
    )[1]
    return gradient


def class_gram_conv_portable(
    inputs: Tensor,
    grad_outputs: Tensor,
    labels: Tensor,
    num_classes: int,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    ignore_index: int,
    sample_norms: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return (gram float64 [C, C], sample_norm_sq float64 [C]); see `imbdyn.ops.class_gram_conv`.

    Memory: the class gradients of those present, a slice of output channels at a time if there is one group.
    """
    counted = labels if check_labels(labels, num_classes, ignore_index) else labels[labels != ignore_index]
    gram = inputs.new_zeros((num_classes, num_classes), dtype=torch.float64)
    norms = inputs.new_full((num_classes,), 0.0 if sample_norms else torch.nan, dtype=torch.float64)
    if not inputs.numel() * grad_outputs.numel():
        return gram, norms
    if inputs.element_size() < 4:  # bf16 and fp16 products need float32 sums
        inputs, grad_outputs = inputs.float(), grad_outputs.float()
    padded = pad_reached(inputs, grad_outputs.shape[2:], kernel_size, stride, padding, dilation)
    present = counted.unique()
    images = [(labels == c).nonzero()[:, 0] for c in present]

    def gradient(which: Tensor, outputs: slice) -> Tensor:
        d = grad_outputs[which][:, outputs]
        return weight_gradient(padded[which], d, kernel_size, stride, dilation, groups).flatten()

    taps = torch.Size(kernel_size).numel()
    per_output = max(1, present.numel() * taps * inputs.shape[1] // groups)
    step = max(1, SCRATCH // per_output) if groups == 1 else grad_outputs.shape[1]
    for start in range(0, grad_outputs.shape[1], step):
        outputs = slice(start, start + step)
        if present.numel():
            part = gram.new_zeros(present.numel(), present.numel())
            add_products(part, torch.stack([gradient(which, outputs) for which in images]))
            gram[present[:, None], present] += part
        if sample_norms:
            for c, which in zip(present, images, strict=True):
                for one in which.split(1):
                    norms[c] += torch.linalg.vector_norm(gradient(one, outputs)).double().square()
    return gram, norms
