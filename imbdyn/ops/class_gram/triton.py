"""class_gram in Triton. Nothing waits for the device: the way is chosen by shapes, and what labels say stays there.

R rows, I inputs, O outputs, S samples of L rows each.

    gram     R^2 (I + O) / 2   pairs of rows, both products and the class-block sum in one kernel (triton_pairs.py)
    direct   R I O             gradients of chunks of a class's samples (triton_gradients.py), added to those of classes
                               if these are small, and their inner products (triton_slots.py)

bfloat16 and float16 products are exact, with float32 sums. float32 products are TF32 (11 bits) like torch's own matrix
products unless `torch.get_float32_matmul_precision()` is "highest", the default, where three TF32 products make one of
about 22 bits. What is read with a stride in its last dimension, and images whose channels do not lie last, are copied
first. float64, and everything under `torch.use_deterministic_algorithms`, goes to waitless.py: the kernels add tiles
with atomics.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from imbdyn.ops._triton import launching_on
from imbdyn.ops.class_gram.order import class_order, make_order
from imbdyn.ops.class_gram.triton_choice import FREE, Forced, gram_is_cheaper
from imbdyn.ops.class_gram.triton_convolution import (
    Images,
    Operand,
    channels_last,
    images_of,
    rows_operand,
)
from imbdyn.ops.class_gram.triton_plan import precision_of
from imbdyn.ops.class_gram.triton_problem import Problem
from imbdyn.ops.class_gram.waitless import gram_conv_waitless, gram_waitless, windows


def class_gram_triton(
    inputs: Tensor,
    grad_outputs: Tensor,
    labels: Tensor,
    num_classes: int,
    samples: Tensor | None,
    ignore_index: int,
    sample_norms: bool = True,
) -> tuple[Tensor, ...]:
    """Return (gram, sample_norm_sq); see `imbdyn.ops.class_gram`."""
    return rows_gram(inputs, grad_outputs, labels, num_classes, samples, ignore_index, sample_norms, bias=False)


def class_gram_linear_triton(
    inputs: Tensor,
    grad_outputs: Tensor,
    labels: Tensor,
    num_classes: int,
    samples: Tensor | None,
    ignore_index: int,
    sample_norms: bool = True,
) -> tuple[Tensor, ...]:
    """Return (gram, sample_norm_sq) of the weight and of the bias; see `imbdyn.ops.class_gram_linear`."""
    return rows_gram(inputs, grad_outputs, labels, num_classes, samples, ignore_index, sample_norms, bias=True)


def rows_gram(
    inputs: Tensor,
    grad_outputs: Tensor,
    labels: Tensor,
    num_classes: int,
    samples: Tensor | None,
    ignore_index: int,
    sample_norms: bool,
    *,
    bias: bool,
    forced: Forced = FREE,
) -> tuple[Tensor, ...]:
    """Return gram and sample_norm_sq of the weight, and if wanted those of the bias."""
    order = (
        class_order(labels, num_classes, ignore_index)
        if samples is None
        else make_order(labels, num_classes, ignore_index, samples)
    )
    if inputs.dtype == torch.float64 or torch.are_deterministic_algorithms_enabled():
        a_SLI, d_SLO = (t if t.dim() == 3 else t[:, None] for t in (inputs, grad_outputs))
        found = gram_waitless(a_SLI, d_SLO, order, sample_norms)
        if not bias:
            return found
        ones = a_SLI.new_ones(1).expand(*a_SLI.shape[:2], 1)
        return found + gram_waitless(ones, d_SLO, order, sample_norms)
    length = inputs.shape[1] if inputs.dim() == 3 else 1
    operands = rows_operand(inputs), rows_operand(grad_outputs)
    problem = Problem(*operands, length, order, sample_norms, bias, forced=forced)
    with launching_on(inputs):
        problem.run()
    return problem.results()


def class_gram_conv_triton(
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
    *,
    forced: Forced = FREE,
) -> tuple[Tensor, ...]:
    """Return (gram, sample_norm_sq); see `imbdyn.ops.class_gram_conv`. `padding` is that before each dimension."""
    order = class_order(labels, num_classes, ignore_index)
    numbers = (kernel_size, stride, padding, dilation)
    if groups > 1 or inputs.dim() > 4 or inputs.dtype == torch.float64 or torch.are_deterministic_algorithms_enabled():
        return gram_conv_waitless(inputs, grad_outputs, order, *numbers, groups, sample_norms)
    inputs, grad_outputs = channels_last(inputs), channels_last(grad_outputs)
    found = _images(inputs, grad_outputs, numbers)
    if found.grads is None:
        grad_outputs = grad_outputs.contiguous(memory_format=torch.channels_last)
        found = _images(inputs, grad_outputs, numbers)
    if found.geometry is None or found.grads is None:
        return gram_conv_waitless(inputs, grad_outputs, order, *numbers, groups, sample_norms)
    geometry, images, places = found.geometry, len(order.samples), found.places
    operand = None if found.rows is None else Operand(inputs, found.rows)
    if operand is None:
        shapes = (images, places, geometry.columns, found.grads.columns, num_classes)
        way = forced.way or ("gram" if gram_is_cheaper(*shapes, inputs.dtype, precision_of(inputs.dtype)) else "direct")
        if way == "gram" and inputs.numel() and places:
            seen = windows(inputs, list(grad_outputs.shape[2:]), *numbers)
            operand = rows_operand(seen.reshape(images, places, geometry.columns))
        forced = _forced_to(way, forced)
    grads = Operand(grad_outputs, found.grads)
    if operand is None:
        operand, forced = Operand(inputs, found.inputs), _forced_to("direct", forced)
        problem = Problem(operand, grads, places, order, sample_norms, False, geometry, forced)
    else:
        problem = Problem(operand, grads, places, order, sample_norms, False, forced=forced)
    with launching_on(inputs):
        problem.run()
    return problem.results()


def _images(inputs: Tensor, grad_outputs: Tensor, numbers: tuple[list[int], ...]) -> Images:
    kernel_size, stride, padding, dilation = (tuple(each) for each in numbers)
    shapes = (inputs.shape, inputs.stride(), grad_outputs.shape, grad_outputs.stride())
    return images_of(*shapes, kernel_size, stride, padding, dilation, inputs.element_size())


@lru_cache
def _forced_to(way: str, forced: Forced) -> Forced:
    return forced._replace(way=way)
