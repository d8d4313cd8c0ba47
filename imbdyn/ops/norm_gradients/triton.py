"""norm_gradients in Triton, for GPUs: x and dy are read once, whichever way they lie."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from imbdyn.ops._triton import alignment, launching_on, multiprocessors
from imbdyn.ops.norm_gradients.portable import (
    accumulator_dtype,
    norm_gradients_portable,
    norm_gradients_rows_portable,
)
from imbdyn.ops.norm_gradients.triton_join import join_across_units, join_groups, sum_parts
from imbdyn.ops.norm_gradients.triton_kernels import GIVEN, GIVEN_PART, JOINED, OWN, channels_along, places_along
from imbdyn.ops.norm_gradients.triton_rows import whole_rows

#: Columns up to which a row is held in registers.
MOST_COLUMNS = 8192
#: Programs for each multiprocessor below which units are divided into parts.
FEW_PROGRAMS = 6


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
    several = across_units and num_groups != input.shape[1]
    if several or accumulator_dtype(input, grad_output) == torch.float64 or not input.numel():
        return norm_gradients_portable(input, grad_output, num_groups, across_units, mean, variance, eps)
    units, channels, places = input.shape
    given = mean is not None and variance is not None
    if mean is not None and variance is not None:
        mean, variance = mean.contiguous(), variance.contiguous()
    x_unit, x_channel, x_place = input.stride()
    dy_unit, dy_channel, dy_place = grad_output.stride()
    along_channels = x_channel == 1 and channels > 1 and places > 1
    if along_channels:
        block_channels, block_places, warps = channels_config(channels)
        programs = units * triton.cdiv(channels, block_channels)
        align = _alignment(input, grad_output, channels, x_unit, x_place, dy_unit, dy_place)
    else:
        block_channels, block_places, warps = places_config(places)
        programs = triton.cdiv(units * channels, block_channels)
        align = _alignment(input, grad_output, places, x_unit, x_channel, dy_unit, dy_channel)
    parts, of_part = divided(places, block_places, programs, input.device)
    if given:
        mode = GIVEN if parts == 1 else GIVEN_PART
    else:
        mode = OWN if parts == 1 and num_groups == channels and not across_units else JOINED
    with launching_on(input):
        weight = torch.empty(units, channels, dtype=torch.float32, device=input.device)
        bias = torch.empty(units, channels, dtype=torch.float32, device=input.device)
        kept = None
        if mode in (JOINED, GIVEN_PART):
            kept = torch.empty(5, units * parts, channels, dtype=torch.float32, device=input.device)
        arguments = (input, grad_output, weight, bias, kept, mean, variance, units)
        if along_channels:
            channels_along[(programs, parts)](
                *arguments,
                channels // align,
                places,
                of_part,
                x_unit // align,
                x_channel,
                x_place // align,
                dy_unit // align,
                dy_channel,
                dy_place // align,
                eps,
                block_channels,
                block_places,
                align,
                mode,
                num_warps=warps,
            )
        else:
            places_along[(programs, parts)](
                *arguments,
                channels,
                places // align,
                of_part // align,
                x_unit // align,
                x_channel // align,
                x_place,
                dy_unit // align,
                dy_channel // align,
                dy_place,
                eps,
                block_channels,
                block_places,
                align,
                mode,
                num_warps=warps,
            )
        if mode == GIVEN_PART:
            sum_parts[(units * triton.cdiv(channels, 128),)](weight, bias, kept, units, channels, parts, 128)
        elif mode == JOINED:
            shared = (weight, bias, kept, units, channels, parts, of_part, places)
            if across_units:
                blocks = triton.cdiv(channels, 32)
                splits = min(triton.cdiv(units, 32), triton.cdiv(multiprocessors(input.device), blocks))
                join_across_units[(blocks, splits)](*shared, triton.cdiv(units, splits), eps, 32, 32)
            else:
                of_group = channels // num_groups
                block = min(1024, triton.next_power_of_2(of_group))
                join_groups[(units * num_groups,)](*shared, of_group, eps, block, num_warps=4 if block > 128 else 1)
    return weight, bias


def norm_gradients_rows_triton(input: Tensor, grad_output: Tensor, centred: bool, eps: float) -> tuple[Tensor, Tensor]:
    """Return (weight [U, D], bias [U, D]); see `imbdyn.ops.norm_gradients_rows`.

    One launch, and a second where units are divided. float64 and rows of more than MOST_COLUMNS are plain torch's.
    """
    units, rows, columns = input.shape
    if accumulator_dtype(input, grad_output) == torch.float64 or not input.numel() or columns > MOST_COLUMNS:
        return norm_gradients_rows_portable(input, grad_output, centred, eps)
    x_unit, x_row, x_column = input.stride()
    dy_unit, dy_row, dy_column = grad_output.stride()
    block_rows, block_columns, warps = rows_config(columns)
    parts, of_part = divided(rows, block_rows, units, input.device)
    align = _alignment(input, grad_output, columns, x_unit, x_row, dy_unit, dy_row)
    with launching_on(input):
        weight = torch.empty(units, columns, dtype=torch.float32, device=input.device)
        bias = torch.empty(units, columns, dtype=torch.float32, device=input.device)
        kept = None if parts == 1 else torch.empty(2, units, parts, columns, dtype=torch.float32, device=input.device)
        whole_rows[(units, parts)](
            input,
            grad_output,
            weight,
            bias,
            kept,
            units,
            rows,
            columns // align,
            of_part,
            x_unit // align,
            x_row // align,
            x_column,
            dy_unit // align,
            dy_row // align,
            dy_column,
            eps,
            centred,
            block_rows,
            block_columns,
            align,
            num_warps=warps,
        )
        if kept is not None:
            sum_parts[(units * triton.cdiv(columns, 128),)](weight, bias, kept, units, columns, parts, 128)
    return weight, bias


def places_config(places: int) -> tuple[int, int, int]:
    """Return channels and places at a time, and warps, where places are neighbours: 16 pairs a thread."""
    block = min(1024, max(16, triton.next_power_of_2(places)))
    return 1024 // block, block, 2


def channels_config(channels: int) -> tuple[int, int, int]:
    """Return channels and places at a time, and warps, where channels are neighbours: 16 pairs a thread."""
    block = min(64, max(16, triton.next_power_of_2(channels)))
    return block, 2048 // block, 4


def rows_config(columns: int) -> tuple[int, int, int]:
    """Return rows at a time, columns rounded up, and warps: 16 pairs a thread."""
    block = max(16, triton.next_power_of_2(columns))
    return max(1, 2048 // block), block, max(4, block // 512)


def divided(length: int, block: int, programs: int, device: torch.device) -> tuple[int, int]:
    """Return into how many parts a unit is divided, so that all multiprocessors have work, and how long one is."""
    blocks = triton.cdiv(length, block)
    wanted = triton.cdiv(FEW_PROGRAMS * multiprocessors(device), programs)
    of_part = block * triton.cdiv(blocks, min(wanted, triton.cdiv(blocks, 4)))
    return triton.cdiv(length, of_part), of_part


def _alignment(x: Tensor, dy: Tensor, *multiples: int) -> int:
    sizes = x.element_size(), dy.element_size()
    return alignment(min(sizes), x.data_ptr() // sizes[0], dy.data_ptr() // sizes[1], *multiples)
