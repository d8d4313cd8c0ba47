"""Each unit's gradient of a normalisation's scale and bias, sum of dy * xhat and sum of dy, in one read of x and dy."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from imbdyn.ops._checks import without_graph
from imbdyn.ops._gpu import offer
from imbdyn.ops._library import define, implement
from imbdyn.ops._library import register as register_second
from imbdyn.ops.norm_gradients.cpu import register as register_cpu
from imbdyn.ops.norm_gradients.portable import (
    accumulator_dtype,
    norm_gradients_portable,
    norm_gradients_rows_portable,
)


class NormGradients(NamedTuple):
    """Gradients of y = weight * xhat + bias, one row a unit; float64 where an argument is, else float32."""

    weight: Tensor
    """[U, C]: sum of dy * xhat."""
    bias: Tensor
    """[U, C]: sum of dy."""


def norm_gradients(
    input: Tensor,
    grad_output: Tensor,
    num_groups: int,
    *,
    across_units: bool = False,
    mean: Tensor | None = None,
    variance: Tensor | None = None,
    eps: float = 1e-5,
) -> NormGradients:
    """Compute sum_p dy * xhat and sum_p dy with xhat = (x - mean) / sqrt(variance + eps), by unit and channel.

    Mean and variance (of n, not n - 1) are those of x over the places of C / num_groups neighbouring channels of a unit
    (GroupNorm; InstanceNorm has num_groups = C) or, `across_units`, of all units (BatchNorm, num_groups = C). Stable:
    a mean of 1e4 with a deviation of 1 keeps its digits.

    Read as they lie are arguments whose places, or both of which channels, are neighbours in memory (contiguous,
    channels_last); others are copied first. Arguments may differ in dtype.

    Args:
        input: x [U, C, P], float64, float32, bfloat16 or float16.
        grad_output: dy [U, C, P], likewise.
        num_groups: divides C.
        across_units: whether all units share statistics.
        mean: [C] that x is normalised by instead of its own, with `variance`.
        variance: [C].
        eps: added to the variance.

    Raises:
        ValueError: if shapes disagree, num_groups does not divide C, or mean is given without variance.
        TypeError: if a dtype is wrong.
    """
    _check(input, grad_output)
    channels = input.shape[1]
    if num_groups < 1 or channels % num_groups:
        raise ValueError(f"num_groups must divide the number of channels, got {num_groups} and {channels}")
    if (mean is None) != (variance is None):
        raise ValueError("mean and variance must be given together, got one of them")
    for name, given in (("mean", mean), ("variance", variance)):
        if given is not None and given.shape != (channels,):
            raise ValueError(f"{name} must be [C] with C={channels}, got {tuple(given.shape)}")
    x, dy = without_graph(input), without_graph(grad_output)
    if mean is not None and variance is not None:
        mean, variance = without_graph(mean), without_graph(variance)
    return NormGradients(*_NORM_GRADIENTS(x, dy, num_groups, across_units, mean, variance, eps))


def norm_gradients_rows(
    input: Tensor, grad_output: Tensor, *, centred: bool = True, eps: float = 1e-5
) -> NormGradients:
    """Compute sum_l dy * xhat and sum_l dy by unit and column, each row of x normalised by its own statistics.

    xhat = (x - mean) / sqrt(variance + eps) over the columns of a row (LayerNorm), or not `centred`
    x / sqrt(mean of x^2 + eps) (RMSNorm). Rows are read as they lie if their columns are neighbours in memory, and
    copied first if not. Arguments may differ in dtype.

    Args:
        input: x [U, L, D], float64, float32, bfloat16 or float16; D at least 1.
        grad_output: dy [U, L, D], likewise.
        centred: whether the mean is taken off.
        eps: added to the variance or mean square.

    Returns:
        weight and bias [U, D].

    Raises:
        ValueError: if shapes disagree or there is no column.
        TypeError: if a dtype is wrong.
    """
    _check(input, grad_output)
    if input.shape[2] == 0:
        raise ValueError(f"input must have a column to be normalised, got shape {tuple(input.shape)}")
    return NormGradients(*_NORM_GRADIENTS_ROWS(without_graph(input), without_graph(grad_output), centred, eps))


def _check(input: Tensor, grad_output: Tensor) -> None:
    if input.dim() != 3 or grad_output.shape != input.shape:
        raise ValueError(
            f"input and grad_output must have one shape of three dimensions, got {tuple(input.shape)} and "
            f"{tuple(grad_output.shape)}"
        )
    for name, t in (("input", input), ("grad_output", grad_output)):
        if not t.is_floating_point():
            raise TypeError(f"{name} must have a floating dtype, got {t.dtype}")


def _fake(
    input: Tensor,
    grad_output: Tensor,
    num_groups: int,  # noqa: ARG001
    across_units: bool,  # noqa: ARG001
    mean: Tensor | None,  # noqa: ARG001
    variance: Tensor | None,  # noqa: ARG001
    eps: float,  # noqa: ARG001
) -> tuple[Tensor, Tensor]:
    dtype = accumulator_dtype(input, grad_output)
    return input.new_empty(input.shape[:2], dtype=dtype), input.new_empty(input.shape[:2], dtype=dtype)


def _fake_rows(input: Tensor, grad_output: Tensor, centred: bool, eps: float) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    dtype, shape = accumulator_dtype(input, grad_output), (input.shape[0], input.shape[2])
    return input.new_empty(shape, dtype=dtype), input.new_empty(shape, dtype=dtype)


_NORM_GRADIENTS = define(
    "norm_gradients(Tensor input, Tensor grad_output, int num_groups, bool across_units, Tensor? mean, "
    "Tensor? variance, float eps) -> (Tensor, Tensor)",
    _fake,
)
_NORM_GRADIENTS_ROWS = define(
    "norm_gradients_rows(Tensor input, Tensor grad_output, bool centred, float eps) -> (Tensor, Tensor)", _fake_rows
)
implement("norm_gradients", "portable", "any", "plain torch", norm_gradients_portable)
register_second("norm_gradients_rows", "any", norm_gradients_rows_portable)
register_cpu()
offer(
    "norm_gradients",
    "triton",
    {"norm_gradients": "norm_gradients_triton", "norm_gradients_rows": "norm_gradients_rows_triton"},
)
