"""Inner products between the class gradients of one parameter, without storing the class gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from imbdyn.ops._checks import IGNORE_INDEX, check_num_classes, check_rows, without_graph
from imbdyn.ops._gpu import offer
from imbdyn.ops._library import define, implement
from imbdyn.ops._library import register as register_second
from imbdyn.ops.class_gram.cpu import register as register_cpu
from imbdyn.ops.class_gram.geometry import Padding, check_convolution, check_samples
from imbdyn.ops.class_gram.portable import class_gram_linear_portable, class_gram_portable
from imbdyn.ops.class_gram.portable_convolution import class_gram_conv_portable
from imbdyn.ops.class_gram.samples import class_gram_samples_portable


class ClassGram(NamedTuple):
    """Everything that norms, cosines, conflicts and shares of class gradients follow from."""

    gram: Tensor
    """float64 [C, C]: <G_a, G_b>_F; rows and columns of absent classes are 0."""
    sample_norm_sq: Tensor
    """float64 [C]: sum over the samples i of class c of ||g_i||^2; NaN where sample norms were not asked for."""


def class_gram(
    inputs: Tensor,
    grad_outputs: Tensor,
    labels: Tensor,
    num_classes: int,
    samples: Tensor | None = None,
    *,
    ignore_index: int = IGNORE_INDEX,
    sample_norms: bool = True,
) -> ClassGram:
    """Compute gram[a, b] = <G_a, G_b>_F with G_c = sum over rows r of class c of grad_outputs_r (outer) inputs_r.

    sum_ab gram[a, b] = ||sum_c G_c||^2 is the squared norm of the whole weight gradient: an identity on every model.

    Args:
        inputs: [R, I], what the parameter was multiplied with, or [S, L, I]: S samples of L rows (tokens, pixels) each.
            A bias has ones [R, 1].
        grad_outputs: [R, O] or [S, L, O], dL/d(output) of the same rows and dtype.
        labels: int64 [R] or [S], class of each row or sample, in 0..num_classes-1 or `ignore_index`.
        num_classes: C, at least 1.
        samples: int64 [R], the sample each row belongs to where samples have different numbers of rows; None when
            every row is a sample, and for [S, L, ...].
        ignore_index: label of rows that count nowhere.
        sample_norms: whether sample_norm_sq is wanted; if not it is NaN, and nothing is spent on it.

    Returns:
        gram float64 [C, C] and sample_norm_sq float64 [C], accumulated in the inputs' dtype or better.

    Raises:
        ValueError: if shapes disagree, there is no class or a label is out of range (the message names the row or
            sample). On a GPU such a label counts nowhere, like `ignore_index`: nothing waits there to raise.
        TypeError: if a dtype is wrong.
    """
    _check(inputs, grad_outputs, labels, num_classes, samples)
    return ClassGram(
        *_CLASS_GRAM(
            without_graph(inputs), without_graph(grad_outputs), labels, num_classes, samples, ignore_index, sample_norms
        )
    )


def class_gram_linear(
    inputs: Tensor,
    grad_outputs: Tensor,
    labels: Tensor,
    num_classes: int,
    samples: Tensor | None = None,
    *,
    ignore_index: int = IGNORE_INDEX,
    sample_norms: bool = True,
) -> tuple[ClassGram, ClassGram]:
    """Compute `class_gram` of a linear layer's weight and of its bias, in one call that shares what they share.

    The bias's G_c = sum over rows r of class c of grad_outputs_r, and a sample's gradient is the sum of its rows.
    Arguments and errors are those of `class_gram`.

    Returns:
        the weight's ClassGram and the bias's.
    """
    _check(inputs, grad_outputs, labels, num_classes, samples)
    of_weight_and_bias = _CLASS_GRAM_LINEAR(
        without_graph(inputs), without_graph(grad_outputs), labels, num_classes, samples, ignore_index, sample_norms
    )
    return ClassGram(*of_weight_and_bias[:2]), ClassGram(*of_weight_and_bias[2:])


def class_gram_conv(
    inputs: Tensor,
    grad_outputs: Tensor,
    labels: Tensor,
    num_classes: int,
    kernel_size: Sequence[int],
    *,
    stride: Sequence[int],
    padding: Padding,
    dilation: Sequence[int],
    groups: int = 1,
    ignore_index: int = IGNORE_INDEX,
    sample_norms: bool = True,
) -> ClassGram:
    """Compute gram[a, b] = <G_a, G_b>_F with G_c the part of a convolution's weight gradient through images of class c.

    G_c[o, i, t] = sum over images u of class c and places p of
    grad_outputs[u, o, p] inputs[u, i, p stride + t dilation - padding], where inputs are 0 outside of themselves and i
    counts within o's group. A transposed convolution's weight gradient is that of a convolution whose inputs are its
    output gradients, and whose output gradients are its inputs.

    Args:
        inputs: [U, C_in, *spatial] with one, two or three spatial dimensions; contiguous or channels_last is fastest.
        grad_outputs: [U, C_out, *out], dL/d(output), of the same dtype. It may cover a part of what the inputs allow.
        labels: int64 [U], class of each image, in 0..num_classes-1 or `ignore_index`.
        num_classes: C, at least 1.
        kernel_size: size of the kernel by spatial dimension.
        stride, dilation: steps of places and of taps, by spatial dimension.
        padding: zeros around the inputs by spatial dimension, a number or a pair (before, after).
        groups: the channels fall into so many groups of their own.
        ignore_index: label of images that count nowhere.
        sample_norms: whether sample_norm_sq is wanted; if not it is NaN, and nothing is spent on it.

    Returns:
        gram float64 [C, C] and sample_norm_sq float64 [C] (a sample is an image), accumulated in the inputs' dtype or
        better.

    Raises:
        ValueError: if shapes disagree, there is no class or a label is out of range (the message names the image). On
            a GPU such a label counts nowhere, like `ignore_index`: nothing waits there to raise.
        TypeError: if a dtype is wrong.
    """
    before = check_convolution(inputs, grad_outputs, labels, kernel_size, stride, padding, dilation, groups)
    check_num_classes(num_classes)
    return ClassGram(
        *_CLASS_GRAM_CONV(
            without_graph(inputs),
            without_graph(grad_outputs),
            labels,
            num_classes,
            kernel_size,
            stride,
            before,
            dilation,
            groups,
            ignore_index,
            sample_norms,
        )
    )


def class_gram_samples(
    gradients: Sequence[Tensor], labels: Tensor, num_classes: int, *, ignore_index: int = IGNORE_INDEX
) -> ClassGram:
    """Compute `class_gram` of M parameters from their samples' gradients, G_c = sum over samples i of class c of g_i.

    For what is small and many: biases, scales, positions. One launch for all of them on a GPU.

    Args:
        gradients: M matrices [N, P_m], a row a sample.
        labels: int64 [N], class of each sample, in 0..num_classes-1 or `ignore_index`.
        num_classes: C, at least 1.
        ignore_index: label of samples that count nowhere.

    Returns:
        gram float64 [M, C, C] and sample_norm_sq float64 [M, C].

    Raises:
        ValueError: if shapes disagree, there is no class or a label is out of range (the message names the row). On a
            GPU such a label counts nowhere, like `ignore_index`: nothing waits there to raise.
        TypeError: if a dtype is wrong.
    """
    for i, gradient in enumerate(gradients):
        check_rows(f"gradients[{i}]", gradient, labels)
    check_num_classes(num_classes)
    return ClassGram(*_CLASS_GRAM_SAMPLES([without_graph(g) for g in gradients], labels, num_classes, ignore_index))


def _check(inputs: Tensor, grad_outputs: Tensor, labels: Tensor, num_classes: int, samples: Tensor | None) -> None:
    if inputs.dim() == 3:
        check_samples(inputs, grad_outputs, labels, samples)
    else:
        check_rows("inputs", inputs, labels)
        check_rows("grad_outputs", grad_outputs, labels)
    check_num_classes(num_classes)
    if inputs.dtype != grad_outputs.dtype:
        raise TypeError(f"inputs and grad_outputs need one dtype, got {inputs.dtype} and {grad_outputs.dtype}")
    if samples is not None and samples.shape != labels.shape:
        raise ValueError(f"samples must be [R] with R={labels.shape[0]}, got {tuple(samples.shape)}")
    if samples is not None and samples.dtype != torch.int64:
        raise TypeError(f"samples must be int64, got {samples.dtype}")


def _fake(
    inputs: Tensor, _grad_outputs: Tensor, _labels: Tensor, num_classes: int, *_: object
) -> tuple[Tensor, Tensor]:
    return (
        inputs.new_empty((num_classes, num_classes), dtype=torch.float64),
        inputs.new_empty(num_classes, dtype=torch.float64),
    )


def _fake_linear(
    inputs: Tensor, grad_outputs: Tensor, labels: Tensor, num_classes: int, *_: object
) -> tuple[Tensor, ...]:
    return _fake(inputs, grad_outputs, labels, num_classes) + _fake(inputs, grad_outputs, labels, num_classes)


def _fake_samples(
    gradients: list[Tensor], labels: Tensor, num_classes: int, _ignore_index: int
) -> tuple[Tensor, Tensor]:
    of_each = (len(gradients), num_classes)
    return (
        labels.new_empty((*of_each, num_classes), dtype=torch.float64),
        labels.new_empty(of_each, dtype=torch.float64),
    )


_ROWS = "Tensor inputs, Tensor grad_outputs, Tensor labels, int num_classes"
_OPTIONS = "int ignore_index, bool sample_norms=True"
_CLASS_GRAM = define(f"class_gram({_ROWS}, Tensor? samples, {_OPTIONS}) -> (Tensor, Tensor)", _fake)
_CLASS_GRAM_LINEAR = define(
    f"class_gram_linear({_ROWS}, Tensor? samples, {_OPTIONS}) -> (Tensor, Tensor, Tensor, Tensor)", _fake_linear
)
_CLASS_GRAM_CONV = define(
    f"class_gram_conv({_ROWS}, int[] kernel_size, int[] stride, int[] padding, int[] dilation, int groups, {_OPTIONS}) "
    "-> (Tensor, Tensor)",
    _fake,
)
_CLASS_GRAM_SAMPLES = define(
    "class_gram_samples(Tensor[] gradients, Tensor labels, int num_classes, int ignore_index) -> (Tensor, Tensor)",
    _fake_samples,
)
implement("class_gram", "portable", "any", "plain torch: gram way or direct way, by shape", class_gram_portable)
register_second("class_gram_linear", "any", class_gram_linear_portable)
register_second("class_gram_conv", "any", class_gram_conv_portable)
register_second("class_gram_samples", "any", class_gram_samples_portable)
register_cpu()
offer(
    "class_gram",
    "triton",
    {
        "class_gram": "class_gram_triton",
        "class_gram_linear": "class_gram_linear_triton",
        "class_gram_conv": "class_gram_conv_triton",
        "class_gram_samples": "triton_samples:class_gram_samples_triton",
    },
)
