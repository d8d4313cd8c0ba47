"""class_logits in Triton, for GPUs: logits are read once (rows wider than a block twice, see triton_wide.py)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from imbdyn.ops._triton import alignment, launching_on, multiprocessors
from imbdyn.ops.class_logits.portable import class_logits_portable
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
#: Programs up to which all add their sums to the result: a million additions of float64 take 20 us.
ADDING = 256
#: Copies of the sums that more programs add to, at most, and classes that they have together.
MOST_COPIES, COPIED = 64, 8192


class Config(NamedTuple):
    """How rows are divided."""

    group: int
    """Rows that a program reads at a time, or works out together."""
    classes: int
    """Classes, above FEW rounded up to a power of two; for rows that are wider, how many are read at a time."""
    warps: int
    of_processor: int
    """Programs for each multiprocessor."""


def class_logits_triton(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Return float64 [8, C], one row a field of `imbdyn.ops.ClassLogits`, in that order."""
    sums = torch.zeros(8, logits.shape[1], dtype=torch.float64, device=logits.device)
    add_class_logits_triton(sums, logits, labels, ignore_index)
    return sums


def add_class_logits_triton(sums: Tensor, logits: Tensor, labels: Tensor, ignore_index: int) -> None:
    """Add what `class_logits_triton` returns to `sums`.

    One launch for a training step's logits, two for many rows, three for wide ones. Rows are added to the sums of their
    labels by float64 atomics, in any order; where torch.use_deterministic_algorithms asks for one order, they are
    stored and added by two more launches. float64 is plain torch's.
    """
    num_rows, num_classes = logits.shape
    if not num_rows:
        return
    if logits.dtype == torch.float64:
        sums += class_logits_portable(logits, labels, ignore_index)
        return
    if not sums.is_contiguous():
        sums += class_logits_triton(logits, labels, ignore_index)
        return
    add = _add_few if num_classes <= FEW else _add_whole if num_classes <= WHOLE else _add_wide
    with launching_on(logits):
        add(sums, logits, labels, ignore_index, torch.are_deterministic_algorithms_enabled())


def _add_few(sums: Tensor, logits: Tensor, labels: Tensor, ignore_index: int, ordered: bool) -> None:
    num_rows, num_classes = logits.shape
    config = few_config(num_classes)
    programs = few_programs(num_rows, config, multiprocessors(logits.device))
    ordered = ordered or programs > ADDING
    to = torch.empty(programs, 8, num_classes, dtype=torch.float64, device=sums.device) if ordered else sums
    piece = few_piece(logits)
    few_classes[(programs,)](
        logits,
        labels,
        to,
        num_rows,
        logits.stride(0) // piece,
        logits.stride(1),
        labels.stride(0),
        ignore_index,
        num_classes,
        config.group,
        piece,
        ordered,
        num_warps=config.warps,
    )
    if ordered:
        _sum_parts(sums, to, 0)


def _add_whole(sums: Tensor, logits: Tensor, labels: Tensor, ignore_index: int, ordered: bool) -> None:
    num_rows, num_classes = logits.shape
    processors = multiprocessors(logits.device)
    config = whole_config(num_rows, num_classes, logits.element_size(), processors)
    rows_of_program = whole_rows_of_program(num_rows, config, processors, num_classes <= TILES)
    programs = -(-num_rows // rows_of_program)
    rows = torch.empty(4, num_rows, dtype=torch.float64, device=sums.device) if ordered else None
    columns = None
    if ordered or programs > ADDING:
        columns = torch.empty(programs, num_classes, dtype=torch.float32, device=sums.device)
    copies = 1 if ordered or programs <= ADDING else max(1, min(MOST_COPIES, COPIED // num_classes))
    to = torch.zeros(copies, 8, num_classes, dtype=torch.float64, device=sums.device) if copies > 1 else sums
    align = _row_alignment(logits)
    (tiles_of_rows if num_classes <= TILES else long_rows)[(programs,)](
        logits,
        labels,
        to,
        rows,
        columns,
        num_rows,
        rows_of_program,
        logits.stride(0) // align,
        logits.stride(1),
        labels.stride(0),
        ignore_index,
        num_classes,
        config.classes,
        config.group,
        align,
        ordered,
        columns is not None,
        copies,
        num_warps=config.warps,
    )
    if copies > 1:
        _sum_parts(sums, to, 0)
    if columns is not None:
        _sum_parts(sums, columns, 7)
    if rows is not None:
        _sum_by_label(sums, rows, labels, ignore_index)


def _add_wide(sums: Tensor, logits: Tensor, labels: Tensor, ignore_index: int, ordered: bool) -> None:
    num_rows, num_classes = logits.shape
    config, along_columns = wide_configs(num_classes)
    splits = triton.cdiv(num_rows, along_columns.group * MOST_TERMS)
    rows = torch.empty(4, num_rows, dtype=torch.float64, device=sums.device) if ordered else None
    columns = torch.empty(splits, num_classes, dtype=torch.float32, device=sums.device) if ordered else None
    softmax = torch.empty(2, num_rows, dtype=torch.float32, device=logits.device)
    align = _row_alignment(logits)
    strides = (num_rows, logits.stride(0) // align, logits.stride(1), labels.stride(0), ignore_index)
    wide_rows[(num_rows,)](
        logits,
        labels,
        sums,
        rows,
        softmax,
        *strides,
        num_classes,
        config.classes,
        align,
        STAGES,
        ordered,
        num_warps=config.warps,
    )
    wide_columns[(triton.cdiv(num_classes, along_columns.classes), splits)](
        logits,
        labels,
        sums,
        softmax,
        columns,
        *strides,
        num_classes,
        along_columns.classes,
        along_columns.group,
        align,
        STAGES,
        ordered,
        num_warps=along_columns.warps,
    )
    if columns is not None and rows is not None:
        _sum_parts(sums, columns, 7)
        _sum_by_label(sums, rows, labels, ignore_index)


#: Blocks of wide rows that are on their way, with the one that is read; more of them take registers.
STAGES = 3
#: Parts that `sum_parts` has on their way together.
SUMMED = 512


def _sum_parts(sums: Tensor, parts: Tensor, field: int) -> None:
    """Add parts [P, ...] to the fields of `sums` from `field` on."""
    width = parts.numel() // parts.shape[0]
    first = field * sums.shape[1]
    block = 32 // parts.element_size()  # what memory brings at least
    sum_parts[(triton.cdiv(width, block),)](sums, parts, parts.shape[0], first, width, SUMMED, block, num_warps=8)


def _sum_by_label(sums: Tensor, rows: Tensor, labels: Tensor, ignore_index: int) -> None:
    num_rows, num_classes = rows.shape[1], sums.shape[1]
    classes, rows_of_tile = 8, 128
    blocks = triton.cdiv(num_classes, classes)
    splits = min(triton.cdiv(num_rows, 8 * rows_of_tile), triton.cdiv(1024, blocks))
    parts = torch.empty(splits, 7, num_classes, dtype=torch.float64, device=sums.device)
    sum_by_label[(blocks, splits)](
        labels, rows, parts, num_rows, splits, labels.stride(0), ignore_index, num_classes, classes, rows_of_tile
    )
    _sum_parts(sums, parts, 0)


@lru_cache(256)
def few_config(num_classes: int) -> Config:
    """Return how rows of few classes are divided."""
    # as many warps as their registers allow
    return Config(32, num_classes, 1, 32 if num_classes <= 4 else 16 if num_classes <= 10 else 12)


def few_piece(logits: Tensor) -> int:
    """Return how many neighbours of a row of few classes are read at once."""
    return alignment(4, logits.shape[1], _row_alignment(logits)) if logits.stride(1) == 1 else 1


def few_programs(num_rows: int, config: Config, processors: int) -> int:
    """Return the number of programs, none of which reads more than MOST_TERMS tiles."""
    tiles = -(-num_rows // config.group)
    return max(min(tiles, config.of_processor * processors), -(-tiles // MOST_TERMS))


@lru_cache(256)
def whole_config(num_rows: int, num_classes: int, element_size: int, processors: int) -> Config:
    """Return how rows are divided that a program holds whole."""
    classes = max(triton.next_power_of_2(num_classes), 16)
    if num_classes <= TILES:
        return Config(max(1, (512 if classes > 64 else 256) // classes), classes, 1, 12)
    # of a row a thread holds a part four times over: read, to be read, its exponentials, and the sums
    warps = max(1, classes // (1024 if element_size < 4 else 512))
    return Config(32 if num_rows >= 16 * processors else 2, classes, warps, max(1, 16 // warps) if warps > 1 else 8)


def whole_rows_of_program(num_rows: int, config: Config, processors: int, tiled: bool) -> int:
    """Return how many rows a program reads, so that all multiprocessors have work and float32 few terms."""
    # a tile adds each of its rows to a sum of its own, a long row all to one
    most = MOST_TERMS * config.group if tiled else MOST_TERMS
    rows = min(most, -(-num_rows // (config.of_processor * processors)))
    if num_rows <= 2 * ADDING:
        rows = max(rows, -(-num_rows // ADDING))
    return max(rows, min(config.group, 2) if not tiled else config.group)


def wide_configs(num_classes: int) -> tuple[Config, Config]:
    """Return how rows wider than a block are divided: along rows, then along columns."""
    classes = triton.next_power_of_2(num_classes)
    return Config(1, min(4096, classes), 8, 0), Config(4, min(1024, classes), 8, 0)


def _row_alignment(logits: Tensor) -> int:
    size = logits.element_size()
    return alignment(size, logits.stride(0), logits.data_ptr() // size)
