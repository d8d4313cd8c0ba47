"""How norm_gradients is divided among programs on a GPU, worked out once for each shape: hosts are slow."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import triton

from imbdyn.ops._triton import alignment
from imbdyn.ops.norm_gradients.triton_kernels import GIVEN, GIVEN_PART, JOINED, OWN

#: Columns up to which a row is held in registers.
MOST_COLUMNS = 8192
#: Programs for each multiprocessor below which units are divided into parts.
FEW_PROGRAMS = 6
#: Blocks that are on their way, and the one that is read.
STAGES = 3

_Strides = tuple[int, ...]


class Plan(NamedTuple):
    """Arguments of the kernels that do not change from call to call."""

    along_channels: bool
    """Whether channels are neighbours in memory; else places are."""
    grid: tuple[int, int]
    numbers: tuple[int, ...]
    """From the sizes to the last stride."""
    constants: tuple[object, ...]
    warps: int
    parts: int
    """Of a unit."""
    of_part: int
    """Places or rows of a part."""
    kept: int
    """Numbers of a part that a second kernel reads; 0 if there is none."""
    join_grid: tuple[int, ...] = ()
    of_join: int = 0
    """Units that a program joins, or channels of a group."""
    join_constants: tuple[int, ...] = ()


@lru_cache(1024)
def plan_channels(
    shape: tuple[int, int, int],
    x_strides: _Strides,
    dy_strides: _Strides,
    element_size: int,
    misaligned: int,
    num_groups: int,
    across_units: bool,
    given: bool,
    processors: int,
) -> Plan:
    """Plan norm_gradients of [U, C, P]; `misaligned` has the bits of elements by which addresses are off 16 bytes."""
    units, channels, places = shape
    (x_unit, x_channel, x_place), (dy_unit, dy_channel, dy_place) = x_strides, dy_strides
    along_channels = x_channel == 1 and channels > 1 and places > 1
    if along_channels:
        block_channels, block_places, warps = channels_config(channels)
        programs = units * triton.cdiv(channels, block_channels)
        align = alignment(element_size, misaligned, channels, x_unit, x_place, dy_unit, dy_place)
    else:
        block_channels, block_places, warps = places_config(places)
        programs = triton.cdiv(units * channels, block_channels)
        align = alignment(element_size, misaligned, places, x_unit, x_channel, dy_unit, dy_channel)
    parts, of_part = divided(places, block_places, programs, processors)
    if given:
        mode = GIVEN if parts == 1 else GIVEN_PART
    else:
        mode = OWN if parts == 1 and num_groups == channels and not across_units else JOINED
    # a pipeline over few blocks does not pay
    stages = STAGES if of_part >= 16 * block_places else 1
    kept = {OWN: 0, GIVEN: 0, GIVEN_PART: 2, JOINED: 5}[mode]
    x = (x_unit // align, x_channel, x_place // align), (x_unit // align, x_channel // align, x_place)
    dy = (dy_unit // align, dy_channel, dy_place // align), (dy_unit // align, dy_channel // align, dy_place)
    if along_channels:
        numbers = (channels // align, places, of_part, *x[0], *dy[0])
    else:
        numbers = (channels, places // align, of_part // align, *x[1], *dy[1])
    plan = Plan(
        along_channels,
        (programs, parts),
        numbers,
        (block_channels, block_places, align, mode, of_part > block_places, stages),
        warps,
        parts,
        of_part,
        kept,
    )
    if mode != JOINED:
        return plan
    if across_units:
        of_program, written = units_of_join(units, channels, processors)
        grid = triton.cdiv(channels, 8), triton.cdiv(units, of_program)
        return plan._replace(join_grid=grid, of_join=of_program, join_constants=(128, written, 8))
    of_group = channels // num_groups
    block = min(256, triton.next_power_of_2(of_group))
    return plan._replace(join_grid=(units * num_groups,), of_join=of_group, join_constants=(block,))


@lru_cache(1024)
def plan_rows(
    shape: tuple[int, int, int],
    x_strides: _Strides,
    dy_strides: _Strides,
    element_size: int,
    misaligned: int,
    centred: bool,
    processors: int,
) -> Plan:
    """Plan norm_gradients_rows of [U, L, D]."""
    units, rows, columns = shape
    (x_unit, x_row, x_column), (dy_unit, dy_row, dy_column) = x_strides, dy_strides
    block_rows, block_columns, warps = rows_config(columns)
    parts, of_part = divided(rows, block_rows, units, processors)
    align = alignment(element_size, misaligned, columns, x_unit, x_row, dy_unit, dy_row)
    strides = (x_unit // align, x_row // align, x_column, dy_unit // align, dy_row // align, dy_column)
    return Plan(
        False,
        (units, parts),
        (columns // align, of_part, *strides),
        (centred, block_rows, block_columns, align, STAGES if block_columns < 4096 else 2),
        warps,
        parts,
        of_part,
        2 if parts > 1 else 0,
    )


def places_config(places: int) -> tuple[int, int, int]:
    """Return channels and places at a time, and warps, where places are neighbours."""
    block = max(16, triton.next_power_of_2(places))
    return (1, 1024, 4) if block >= 1024 else (512 // block, block, 1)


def channels_config(channels: int) -> tuple[int, int, int]:
    """Return channels and places at a time, and warps, where channels are neighbours."""
    block = min(64, max(16, triton.next_power_of_2(channels)))
    return block, 1024 // block, 2


def rows_config(columns: int) -> tuple[int, int, int]:
    """Return rows at a time, columns rounded up, and warps: 8 or 16 pairs a thread."""
    block = max(16, triton.next_power_of_2(columns))
    # two warps would hold many short rows, and their sums, in more registers than there are
    return max(1, 1024 // block), block, max(4 if block <= 256 else 2, block // 512)


def units_of_join(units: int, channels: int, processors: int) -> tuple[int, int]:
    """Return how many units a program joins, and how many at a time."""
    splits = max(1, min(triton.cdiv(units, 16), 2 * processors // triton.cdiv(channels, 8)))
    of_program = triton.cdiv(units, splits)
    return of_program, 16 if of_program <= 16 else 128


def divided(length: int, block: int, programs: int, processors: int) -> tuple[int, int]:
    """Return into how many parts a unit is divided, so that all multiprocessors have work, and how long one is."""
    blocks = triton.cdiv(length, block)
    wanted = max(1, triton.cdiv(FEW_PROGRAMS * processors, programs))
    of_part = block * triton.cdiv(blocks, min(wanted, triton.cdiv(blocks, 4)))
    return triton.cdiv(length, of_part), of_part
