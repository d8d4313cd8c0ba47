"""class_gram in C++ (csrc/cpu/class_gram.h): one call sorts, multiplies and sums; torch only allocates the results."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from imbdyn.ops import _extension
from imbdyn.ops._checks import bad_label
from imbdyn.ops._library import implement, unavailable
from imbdyn.ops._library import register as register_second
from imbdyn.ops.class_gram.geometry import as_rows, pad_reached

#: The ways of csrc/cpu/class_gram.h by name. The cheapest is chosen; benchmarks and tests force the others.
WAYS = {"cheapest": 0, "gram": 1, "direct": 2, "sample": 3}


def register() -> None:
    """Let the compiled kernels serve CPU tensors, or record why they cannot."""
    _C = _extension.kernels
    if _C is None:
        unavailable("class_gram", "cpu", "cpu", "C++", _extension.why_missing)
        return
    implement("class_gram", "cpu", "cpu", f"C++, {_C.active_isa()}", class_gram_cpu)
    register_second("class_gram_linear", "cpu", class_gram_linear_cpu)
    register_second("class_gram_conv", "cpu", class_gram_conv_cpu)
    register_second("class_gram_samples", "cpu", class_gram_samples_cpu)


def _results(num_classes: int, sample_norms: bool) -> tuple[Tensor, Tensor]:
    """Zero-filled: the kernels write what belongs to the classes that are present."""
    gram = torch.zeros(num_classes, num_classes, dtype=torch.float64)
    norms = torch.zeros(num_classes, dtype=torch.float64)
    return gram, norms if sample_norms else norms.fill_(torch.nan)


def _addresses(results: tuple[Tensor, Tensor] | None, sample_norms: bool) -> tuple[int, int]:
    if results is None:
        return 0, 0
    return results[0].data_ptr(), results[1].data_ptr() if sample_norms else 0


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
    way: str = "cheapest",
    rows_per_label: int = 1,
) -> tuple[Tensor, ...]:
    """Return gram and sample_norm_sq of the weight, and if wanted those of the bias, by one of `WAYS`.

    inputs are [R, I], or [S, L, I] with labels of samples: see `imbdyn.ops.class_gram`.

    Raises:
        ValueError: naming the first row whose label is bad; where `rows_per_label` rows repeat a label that the caller
            was given once, its place there.
        TypeError: for a dtype that the kernels do not read.
    """
    _C = _extension.kernels
    assert _C is not None
    if inputs.dim() == 3:
        rows_per_label = inputs.shape[1]
        inputs, grad_outputs, labels, samples = as_rows(inputs, grad_outputs, labels, samples)
    weight_results = _results(num_classes, sample_norms)
    bias_results = _results(num_classes, sample_norms) if bias else None
    row = _C.class_gram(
        _extension.element_type("inputs", inputs.dtype),
        inputs.shape[0],
        inputs.data_ptr(),
        inputs.shape[1],
        *inputs.stride(),
        grad_outputs.data_ptr(),
        grad_outputs.shape[1],
        *grad_outputs.stride(),
        labels.data_ptr(),
        labels.stride(0),
        num_classes,
        ignore_index,
        0 if samples is None else samples.data_ptr(),
        0 if samples is None else samples.stride(0),
        WAYS[way],
        *_addresses(weight_results, sample_norms),
        *_addresses(bias_results, sample_norms),
        torch.get_num_threads(),
    )
    if row >= 0:
        raise bad_label(row // rows_per_label, int(labels[row]), num_classes, ignore_index)
    return weight_results + (bias_results or ())


def class_gram_cpu(
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


def class_gram_linear_cpu(
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


def class_gram_samples_cpu(
    gradients: list[Tensor], labels: Tensor, num_classes: int, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """Return gram [M, C, C] and sample_norm_sq [M, C]; see `imbdyn.ops.class_gram_samples`."""
    _C = _extension.kernels
    assert _C is not None
    gram = torch.zeros(len(gradients), num_classes, num_classes, dtype=torch.float64)
    norms = torch.zeros(len(gradients), num_classes, dtype=torch.float64)
    ones = {dtype: torch.ones(1, dtype=dtype) for dtype in {d.dtype for d in gradients}}
    of_labels = (labels.data_ptr(), labels.stride(0), num_classes, ignore_index)
    at, norms_at, threads = gram.data_ptr(), norms.data_ptr(), torch.get_num_threads()
    for d_NP in gradients:
        row = _C.class_gram(
            _extension.element_type("gradients", d_NP.dtype),
            d_NP.shape[0],
            ones[d_NP.dtype].data_ptr(),  # repeated: strides 0
            1,
            0,
            0,
            d_NP.data_ptr(),
            d_NP.shape[1],
            *d_NP.stride(),
            *of_labels,
            0,
            0,
            WAYS["cheapest"],
            at,
            norms_at,
            0,
            0,
            threads,
        )
        if row >= 0:
            raise bad_label(row, int(labels[row]), num_classes, ignore_index)
        at, norms_at = at + 8 * num_classes**2, norms_at + 8 * num_classes
    return gram, norms


def class_gram_conv_cpu(
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
) -> tuple[Tensor, ...]:
    """Return (gram, sample_norm_sq); see `imbdyn.ops.class_gram_conv`. `padding` is that before each dimension."""
    geometry = (kernel_size, stride, padding, dilation)
    if groups == 1 and _few_places(inputs, grad_outputs, num_classes, kernel_size):
        return unfolded_gram(inputs, grad_outputs, labels, num_classes, *geometry, ignore_index, sample_norms)
    return sliding_gram(inputs, grad_outputs, labels, num_classes, *geometry, groups, ignore_index, sample_norms)


def _few_places(inputs: Tensor, grad_outputs: Tensor, num_classes: int, kernel_size: list[int]) -> bool:
    """Return whether pairs of places cost less than products: few images, or small ones with many channels.

    As many classes as there can be are taken for present: to count them would be a second pass over the labels.

    In multiply-adds at full speed, with the constants of csrc/cpu/class_gram.cpp: a product's tile of 6 x 16 costs 700
    more, a dot product costs 1.3 for each of its multiply-adds and 40 more, and a number unfolded and packed 16.
    """
    images, outputs = grad_outputs.shape[:2]
    columns = inputs.shape[1] * math.prod(kernel_size)
    rows = images * math.prod(grad_outputs.shape[2:])
    if not rows * columns * outputs:
        return False
    pairs = rows * (rows + 48) / 2 * (1.3 * (columns + outputs) + 80) + 16 * rows * (columns + outputs)
    products = rows * columns * outputs + images * columns * outputs * (700 / 96)
    classes = min(images, num_classes)
    return pairs < products + columns * outputs * (1.3 * classes * (classes + 1) / 2 + 8 * (classes + 4))


def unfolded_gram(
    inputs: Tensor,
    grad_outputs: Tensor,
    labels: Tensor,
    num_classes: int,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ignore_index: int,
    sample_norms: bool,
) -> tuple[Tensor, ...]:
    """Return (gram, sample_norm_sq) of a convolution by the gram way, over places as rows of unfolded inputs."""
    out = grad_outputs.shape[2:]
    padded = pad_reached(inputs, out, kernel_size, stride, padding, dilation)
    steps = padded.stride()[2:]
    taps = [(k, step * d) for k, step, d in zip(kernel_size, steps, dilation, strict=True)]
    places = [(n, step * s) for n, step, s in zip(out, steps, stride, strict=True)]
    axes = [(padded.shape[0], padded.stride(0)), *places, (padded.shape[1], padded.stride(1)), *taps]
    windows = padded.as_strided([n for n, _ in axes], [step for _, step in axes])
    count = math.prod(out)
    samples = torch.arange(len(labels)).repeat_interleave(count)
    return rows_gram(
        windows.reshape(len(samples), -1),
        grad_outputs.movedim(1, -1).reshape(len(samples), -1),
        labels[samples],
        num_classes,
        samples,
        ignore_index,
        sample_norms,
        bias=False,
        way="gram",
        rows_per_label=count,
    )


def sliding_gram(
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
    sample_norms: bool,
) -> tuple[Tensor, ...]:
    """Return (gram, sample_norm_sq) of a convolution from the images' weight gradients, without unfolding.

    Raises:
        ValueError: naming the first image whose label is bad.
        TypeError: for a dtype that the kernels do not read.
    """
    _C = _extension.kernels
    assert _C is not None
    results = _results(num_classes, sample_norms)
    row = _C.class_gram_convolution(
        _extension.element_type("inputs", inputs.dtype),
        inputs.data_ptr(),
        inputs.shape,
        inputs.stride(),
        grad_outputs.data_ptr(),
        grad_outputs.shape,
        grad_outputs.stride(),
        labels.data_ptr(),
        labels.stride(0),
        num_classes,
        ignore_index,
        kernel_size,
        stride,
        padding,
        dilation,
        groups,
        *_addresses(results, sample_norms),
        torch.get_num_threads(),
    )
    if row >= 0:
        raise bad_label(row, int(labels[row]), num_classes, ignore_index)
    return results
