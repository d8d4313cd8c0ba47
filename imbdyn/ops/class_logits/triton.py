"""class_logits in Triton, for GPUs: logits are read once (rows wider than a block twice, see triton_wide.py)."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from imbdyn.ops._triton import alignment, launching_on, multiprocessors
from imbdyn.ops.class_logits.triton_few import few_classes
from imbdyn.ops.class_logits.triton_kernels import tiles_of_rows
from imbdyn.ops.class_logits.triton_long import long_rows
from imbdyn.ops.class_logits.triton_sums import sum_by_label, sum_parts
from imbdyn.ops.class_logits.triton_wide import wide_columns, wide_rows

#: Classes up to which a row is a thread's.
FEW = 16
#: Classes up to which several rows are read at a time.
TILES = 256
#: Classes up to which a row is held in registers.
WHOLE = 8192
#: Numbers that are added in float32 before float64 takes over.
MOST_TERMS = 64


def class_logits_triton(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Return float64 [8, C], one row a field of `imbdyn.ops.ClassLogits`, in that order."""
    sums = torch.zeros(8, logits.shape[1], dtype=torch.float64, device=logits.device)
    add_class_logits_triton(sums, logits, labels, ignore_index)
    return sums


def add_class_logits_triton(sums: Tensor, logits: Tensor, labels: Tensor, ignore_index: int) -> None:
    """Add what `class_logits_triton` returns to `sums`.

    One launch for rows of at most WHOLE classes, two for wider ones. It ends in float64 atomics, in any order; where
    torch.use_deterministic_algorithms asks for one order, parts are stored and summed by one to three more launches.
    """
    if not logits.shape[0]:
        return
    if not sums.is_contiguous():
        sums += class_logits_triton(logits, labels, ignore_index)
        return
    num_classes = logits.shape[1]
    add = _add_few if num_classes <= FEW else _add_whole if num_classes <= WHOLE else _add_wide
    with launching_on(logits):
        add(sums, logits, labels, ignore_index)


def _add_few(sums: Tensor, logits: Tensor, labels: Tensor, ignore_index: int) -> None:
    num_rows, num_classes = logits.shape
    rows_of_tile, classes, warps, programs_of_processor = few_config(num_classes, logits.dtype)
    tiles = triton.cdiv(num_rows, rows_of_tile)
    programs = max(min(tiles, programs_of_processor * multiprocessors(logits.device)), triton.cdiv(tiles, MOST_TERMS))
    ordered = torch.are_deterministic_algorithms_enabled()
    to = sums
    if ordered:
        to = torch.empty(programs, *sums.shape, dtype=torch.float64, device=sums.device)
    few_classes[(programs,)](
        logits,
        labels,
        to,
        num_rows,
        *logits.stride(),
        labels.stride(0),
        ignore_index,
        num_classes,
        classes,
        rows_of_tile,
        ordered,
        num_warps=warps,
    )
    if ordered:
        sum_parts[(triton.cdiv(sums.numel(), 32),)](sums, to, programs, sums.numel(), 32, num_warps=1)


def _add_whole(sums: Tensor, logits: Tensor, labels: Tensor, ignore_index: int) -> None:
    num_rows, num_classes = logits.shape
    processors = multiprocessors(logits.device)
    rows, classes, warps, programs_of_processor = whole_config(num_rows, num_classes, logits.dtype, processors)
    tiles = triton.cdiv(num_rows, rows)
    tiled = num_classes <= TILES
    # a tile adds each of its rows to a sum of its own, a group all to one
    most_tiles = MOST_TERMS if tiled else max(1, MOST_TERMS // rows)
    programs = max(min(tiles, programs_of_processor * processors), triton.cdiv(tiles, most_tiles))
    kept = _kept_parts(sums, num_rows, programs)
    align = _row_alignment(logits)
    (tiles_of_rows if tiled else long_rows)[(programs,)](
        logits,
        labels,
        sums,
        *kept,
        num_rows,
        logits.stride(0) // align,
        logits.stride(1),
        labels.stride(0),
        ignore_index,
        num_classes,
        classes,
        rows,
        align,
        kept[0] is not None,
        num_warps=warps,
    )
    _sum_kept_parts(sums, labels, ignore_index, *kept)


def _add_wide(sums: Tensor, logits: Tensor, labels: Tensor, ignore_index: int) -> None:
    num_rows, num_classes = logits.shape
    splits = triton.cdiv(num_rows, 4 * MOST_TERMS)
    kept = _kept_parts(sums, num_rows, splits)
    align = _row_alignment(logits)
    softmax = torch.empty(2, num_rows, dtype=accumulator(logits.dtype), device=logits.device)
    strides = (num_rows, logits.stride(0) // align, logits.stride(1), labels.stride(0), ignore_index)
    rows, columns = kept
    along_rows, along_columns, rows_of_tile, warps = wide_config(num_classes)
    wide_rows[(num_rows,)](
        logits, labels, sums, rows, softmax, *strides, num_classes, along_rows, align, rows is not None, num_warps=warps
    )
    wide_columns[(triton.cdiv(num_classes, along_columns), splits)](
        logits,
        labels,
        sums,
        softmax,
        columns,
        *strides,
        num_classes,
        along_columns,
        rows_of_tile,
        align,
        columns is not None,
        num_warps=warps,
    )
    _sum_kept_parts(sums, labels, ignore_index, rows, columns)


def _kept_parts(sums: Tensor, num_rows: int, parts: int) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Return memory for what rows [4, N] and parts [parts, C] give, if an order of summation is asked for."""
    if not torch.are_deterministic_algorithms_enabled():
        return None, None
    rows = torch.empty(4, num_rows, dtype=torch.float64, device=sums.device)
    return rows, torch.empty(parts, sums.shape[1], dtype=torch.float64, device=sums.device)


def _sum_kept_parts(
    sums: Tensor, labels: Tensor, ignore_index: int, rows: Tensor | None, columns: Tensor | None
) -> None:
    if rows is None or columns is None:
        return
    num_rows, num_classes = rows.shape[1], columns.shape[1]
    classes, rows_of_tile = 8, 128
    blocks = triton.cdiv(num_classes, classes)
    splits = min(triton.cdiv(num_rows, 8 * rows_of_tile), triton.cdiv(1024, blocks))
    parts = torch.empty(splits, 7, num_classes, dtype=torch.float64, device=sums.device)
    sum_by_label[(blocks, splits)](
        labels, rows, parts, num_rows, splits, labels.stride(0), ignore_index, num_classes, classes, rows_of_tile
    )
    sum_parts[(triton.cdiv(7 * num_classes, 128),)](sums, parts, splits, 7 * num_classes, 128)
    sum_parts[(triton.cdiv(num_classes, 128),)](sums[7], columns, columns.shape[0], num_classes, 128)


def few_config(num_classes: int, dtype: torch.dtype) -> tuple[int, int, int, int]:  # noqa: ARG001
    """Return rows of a tile, classes rounded up to a power of two, warps, and programs for each multiprocessor."""
    return 32, triton.next_power_of_2(num_classes), 1, 12


def wide_config(num_classes: int) -> tuple[int, int, int, int]:
    """Return classes at a time along rows, then along columns, rows at a time there, and warps of both."""
    return min(4096, triton.next_power_of_2(num_classes)), min(1024, triton.next_power_of_2(num_classes)), 4, 8


def whole_config(num_rows: int, num_classes: int, dtype: torch.dtype, processors: int) -> tuple[int, int, int, int]:
    """Return rows of a tile or group, classes rounded up to a power of two, warps, programs for each multiprocessor."""
    classes = max(triton.next_power_of_2(num_classes), 16)
    of_warp = 512 if dtype == torch.float64 or classes < 128 else 1024  # of which a thread holds a thirty-second thrice
    warps = max(1, min(16, classes // of_warp))
    programs_of_processor = max(1, 16 // warps)
    if num_classes <= TILES:
        return of_warp // classes, classes, 1, programs_of_processor
    group = 1
    while group < 16 and 2 * group * programs_of_processor * processors <= num_rows:
        group *= 2
    return group, classes, warps, programs_of_processor


def _row_alignment(logits: Tensor) -> int:
    size = logits.element_size()
    return alignment(size, logits.stride(0), logits.data_ptr() // size)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Return the type of the arithmetic."""
    return torch.float64 if dtype == torch.float64 else torch.float32
