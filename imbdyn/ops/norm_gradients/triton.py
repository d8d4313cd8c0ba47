"""norm_gradients in Triton, for GPUs: x and dy are read once, whichever way they lie."""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
from torch import Tensor

from imbdyn.ops._triton import Launch, launching_on, multiprocessors
from imbdyn.ops.norm_gradients.portable import norm_gradients_portable, norm_gradients_rows_portable
from imbdyn.ops.norm_gradients.triton_join import join_across_units, join_groups, sum_parts
from imbdyn.ops.norm_gradients.triton_kernels import channels_along, places_along
from imbdyn.ops.norm_gradients.triton_plan import MOST_COLUMNS, Plan, plan_channels, plan_rows
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
    shape = input.shape
    units, channels, _ = shape
    several = across_units and num_groups != channels
    if several or torch.float64 in (input.dtype, grad_output.dtype) or not input.numel():
        return norm_gradients_portable(input, grad_output, num_groups, across_units, mean, variance, eps)
    if mean is not None and variance is not None:
        mean, variance = mean.contiguous(), variance.contiguous()
    given = None if mean is None or variance is None else (mean.dtype, variance.dtype)
    size, off = _elements(input, grad_output)
    launches = _channel_launches(
        shape, input.stride(), grad_output.stride(), input.dtype, grad_output.dtype, size, off, num_groups,
        across_units, given, eps, input.device,
    )  # fmt: skip
    return _launch(launches, input, grad_output, units, channels, mean, variance)


def _launch(
    launches: tuple[Plan, Launch, Launch | None],
    input: Tensor,
    grad_output: Tensor,
    units: int,
    width: int,
    *statistics: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Make the results [U, width], and what is kept for the second launch if there is one."""
    plan, sums, join = launches
    device = input.device
    with launching_on(input):
        weight = torch.empty(units, width, dtype=torch.float32, device=device)
        bias = torch.empty(units, width, dtype=torch.float32, device=device)
        kept = None
        if plan.kept:
            kept = torch.empty(plan.kept, units * plan.parts, width, dtype=torch.float32, device=device)
        sums(input, grad_output, weight, bias, kept, *statistics)
        if join is not None:
            join(weight, bias, kept)
    return weight, bias


@lru_cache(1024)
def _channel_launches(
    shape: tuple[int, int, int],
    x_strides: tuple[int, ...],
    dy_strides: tuple[int, ...],
    x_dtype: torch.dtype,
    dy_dtype: torch.dtype,
    element_size: int,
    misaligned: int,
    num_groups: int,
    across_units: bool,
    given: tuple[torch.dtype, torch.dtype] | None,
    eps: float,
    device: torch.device,
) -> tuple[Plan, Launch, Launch | None]:
    """Return the plan of a call, and its one or two launches; dtypes are here because a `Launch` serves one of each."""
    del x_dtype, dy_dtype
    units, channels, places = shape
    plan = plan_channels(
        (units, channels, places), x_strides, dy_strides, element_size, misaligned, num_groups, across_units,
        given is not None, multiprocessors(device),
    )  # fmt: skip
    kernel = channels_along if plan.along_channels else places_along
    sums = Launch(kernel, plan.grid, (units, *plan.numbers, eps, *plan.constants), num_warps=plan.warps)
    if not plan.kept:
        return plan, sums, None
    if given is not None:
        grid = (units * triton.cdiv(channels, 128),)
        return plan, sums, Launch(sum_parts, grid, (units, channels, plan.parts, 128))
    numbers = (units, channels, plan.parts, plan.of_part, places, plan.of_join, eps, *plan.join_constants)
    join, warps = (join_across_units, 4) if across_units else (join_groups, 1)
    return plan, sums, Launch(join, plan.join_grid, numbers, num_warps=warps)


def norm_gradients_rows_triton(input: Tensor, grad_output: Tensor, centred: bool, eps: float) -> tuple[Tensor, Tensor]:
    """Return (weight [U, D], bias [U, D]); see `imbdyn.ops.norm_gradients_rows`.

    One launch, and a second where units are divided. float64 and rows of more than MOST_COLUMNS are plain torch's.
    """
    units, _, columns = input.shape
    if torch.float64 in (input.dtype, grad_output.dtype) or not input.numel() or columns > MOST_COLUMNS:
        return norm_gradients_rows_portable(input, grad_output, centred, eps)
    launches = _row_launches(
        input.shape, input.stride(), grad_output.stride(), input.dtype, grad_output.dtype,
        *_elements(input, grad_output), centred, eps, input.device,
    )  # fmt: skip
    return _launch(launches, input, grad_output, units, columns)


@lru_cache(1024)
def _row_launches(
    shape: tuple[int, int, int],
    x_strides: tuple[int, ...],
    dy_strides: tuple[int, ...],
    x_dtype: torch.dtype,
    dy_dtype: torch.dtype,
    element_size: int,
    misaligned: int,
    centred: bool,
    eps: float,
    device: torch.device,
) -> tuple[Plan, Launch, Launch | None]:
    """Return what `_channel_launches` returns."""
    del x_dtype, dy_dtype
    units, rows, columns = shape
    plan = plan_rows(
        (units, rows, columns), x_strides, dy_strides, element_size, misaligned, centred, multiprocessors(device)
    )
    numbers = (units, rows, *plan.numbers, eps, *plan.constants)
    sums = Launch(whole_rows, plan.grid, numbers, num_warps=plan.warps)
    if not plan.kept:
        return plan, sums, None
    return plan, sums, Launch(sum_parts, (units * triton.cdiv(columns, 128),), (units, columns, plan.parts, 128))


def _elements(x: Tensor, dy: Tensor) -> tuple[int, int]:
    """Return the smaller size of an element, and the bits of elements by which addresses are off 16 bytes."""
    size, other = x.element_size(), dy.element_size()
    x_off, dy_off = x.data_ptr() % 16, dy.data_ptr() % 16
    return min(size, other), x_off // size | dy_off // other
