"""norm_gradients in Triton, for GPUs: x and dy are read once, whichever way they lie."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from imbdyn.ops._triton import launching_on, multiprocessors
from imbdyn.ops.norm_gradients.portable import norm_gradients_portable, norm_gradients_rows_portable
from imbdyn.ops.norm_gradients.triton_join import join_across_units, join_groups, sum_parts
from imbdyn.ops.norm_gradients.triton_kernels import channels_along, places_along
from imbdyn.ops.norm_gradients.triton_plan import MOST_COLUMNS, plan_channels, plan_rows
from imbdyn.ops.norm_gradients.triton_rows import whole_rows


def norm_gradients_triton(
    input: Tensor,
    grad_output: Tensor,
    num_groups: int,
    across_units: bool,
    mean: Tensor | None,
    variance: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Return (weight [U, C], bias [U, C]); see `imbdyn.ops.norm_gradients`.

    One launch where a program sees all that statistics are of, or they are given; two otherwise. Any strides: nothing
    is copied, though reading is slow where neither places nor channels are neighbours. Plain torch has float64, and
    statistics across units of more than one channel, which no normalisation of torch has.
    """
    shape = units, channels, places = input.shape
    several = across_units and num_groups != channels
    if several or torch.float64 in (input.dtype, grad_output.dtype) or not input.numel():
        return norm_gradients_portable(input, grad_output, num_groups, across_units, mean, variance, eps)
    if mean is not None and variance is not None:
        mean, variance = mean.contiguous(), variance.contiguous()
    device = input.device
    plan = plan_channels(
        tuple(shape),
        input.stride(),
        grad_output.stride(),
        *_elements(input, grad_output),
        num_groups,
        across_units,
        mean is not None,
        multiprocessors(device),
    )
    with launching_on(input):
        weight = torch.empty(units, channels, dtype=torch.float32, device=device)
        bias = torch.empty(units, channels, dtype=torch.float32, device=device)
        kept = None
        if plan.kept:
            kept = torch.empty(plan.kept, units * plan.parts, channels, dtype=torch.float32, device=device)
        (channels_along if plan.along_channels else places_along)[plan.grid](
            input,
            grad_output,
            weight,
            bias,
            kept,
            mean,
            variance,
            units,
            *plan.numbers,
            eps,
            *plan.constants,
            num_warps=plan.warps,
        )
        if kept is not None:
            shared = (weight, bias, kept, units, channels, plan.parts)
            if mean is not None:
                sum_parts[(units * triton.cdiv(channels, 128),)](*shared, 128)
            elif across_units:
                join_across_units[plan.join_grid](
                    *shared, plan.of_part, places, plan.of_join, eps, *plan.join_constants, num_warps=4
                )
            else:
                join_groups[plan.join_grid](
                    *shared, plan.of_part, places, plan.of_join, eps, *plan.join_constants, num_warps=1
                )
    return weight, bias


def norm_gradients_rows_triton(input: Tensor, grad_output: Tensor, centred: bool, eps: float) -> tuple[Tensor, Tensor]:
    """Return (weight [U, D], bias [U, D]); see `imbdyn.ops.norm_gradients_rows`.

    One launch, and a second where units are divided. float64 and rows of more than MOST_COLUMNS are plain torch's.
    """
    units, rows, columns = input.shape
    if torch.float64 in (input.dtype, grad_output.dtype) or not input.numel() or columns > MOST_COLUMNS:
        return norm_gradients_rows_portable(input, grad_output, centred, eps)
    device = input.device
    plan = plan_rows(
        tuple(input.shape),
        input.stride(),
        grad_output.stride(),
        *_elements(input, grad_output),
        centred,
        multiprocessors(device),
    )
    with launching_on(input):
        weight = torch.empty(units, columns, dtype=torch.float32, device=device)
        bias = torch.empty(units, columns, dtype=torch.float32, device=device)
        kept = None
        if plan.kept:
            kept = torch.empty(2, units * plan.parts, columns, dtype=torch.float32, device=device)
        whole_rows[plan.grid](
            input,
            grad_output,
            weight,
            bias,
            kept,
            units,
            rows,
            *plan.numbers,
            eps,
            *plan.constants,
            num_warps=plan.warps,
        )
        if kept is not None:
            sum_parts[(units * triton.cdiv(columns, 128),)](weight, bias, kept, units, columns, plan.parts, 128)
    return weight, bias


def _elements(x: Tensor, dy: Tensor) -> tuple[int, int]:
    """Return the smaller size of an element, and the bits of elements by which addresses are off 16 bytes."""
    size, other = x.element_size(), dy.element_size()
    x_off, dy_off = x.data_ptr() % 16, dy.data_ptr() % 16
    return min(size, other), x_off // size | dy_off // other
