"""class_moments in Triton: rows ordered by class (triton_order.py), then the features read once (triton_kernels.py)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from imbdyn.ops._triton import launching_on
from imbdyn.ops.class_moments import triton_order as order_kernels
from imbdyn.ops.class_moments.triton_kernels import merge_chunks, moments_of_lines

#: int64 numbers of a line of the table (triton_order.py).
_LINE = 4

#: Rows that a program of one way to order them takes, and how many of them it compares at a time.
_PAIRS, _COUNTED, _COMPARED, _LISTED = 32, 256, 16, 256


@dataclass(frozen=True)
class Config:
    """How one call is computed."""

    way: str
    """How rows are ordered: `pairs` (all are compared), `count` (by counting, for C <= N) or `sort` (torch.sort)."""
    chunk_rows: int
    """B: rows of one class that a program takes."""
    tile: tuple[int, int]
    """Rows and columns that a program reads at a time."""
    warps: int


def choose(rows: int, columns: int, num_classes: int, dtype: torch.dtype) -> Config:
    """Return how moments of features [rows, columns] are computed fastest."""
    way = "pairs" if rows <= 8192 else "count" if num_classes <= 2048 else "sort"
    # 2 KB of a row: rows lie apart, and pieces of memory of that size are read as fast as all of it in order
    width = max(16, min(triton.next_power_of_2(columns), 2048 // dtype.itemsize))
    return Config(way, 1024, ((2048 if dtype == torch.float64 else 4096) // width, width), 4)


def class_moments_triton(
    features: Tensor, labels: Tensor, num_classes: int, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (count, mean, m2) as `imbdyn.ops.class_moments`; what is no class is ignored, nothing waits to raise."""
    rows, columns = features.shape
    config = choose(rows, columns, num_classes, features.dtype)
    return moments(features, labels, num_classes, ignore_index, config)


def add_class_moments_triton(
    count: Tensor, mean: Tensor, m2: Tensor, features: Tensor, labels: Tensor, ignore_index: int
) -> None:
    """Add rows to moments as `imbdyn.ops.add_class_moments`; what is no class is ignored, nothing waits to raise."""
    rows, columns = features.shape
    config = choose(rows, columns, len(count), features.dtype)
    _add(count, mean, m2, features, labels, ignore_index, config, fresh=False)


def moments(
    features: Tensor, labels: Tensor, num_classes: int, ignore_index: int, config: Config
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `class_moments_triton` returns, computed as `config` says."""
    rows, columns = features.shape
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    # Where every class has a program, that writes zeros for an absent one.
    make = torch.empty if num_classes <= rows else torch.zeros
    make_count = torch.zeros if config.way == "sort" else make
    count = make_count(num_classes, dtype=torch.int64, device=features.device)
    mean = make(num_classes, columns, dtype=dtype, device=features.device)
    m2 = make(num_classes, columns, dtype=dtype, device=features.device)
    _add(count, mean, m2, features, labels, ignore_index, config, fresh=True)
    return count, mean, m2


def _add(
    count: Tensor,
    mean: Tensor,
    m2: Tensor,
    features: Tensor,
    labels: Tensor,
    ignore_index: int,
    config: Config,
    *,
    fresh: bool,
) -> None:
    """Add rows to moments; `fresh`: they hold nothing, and nothing has been written where every class has a program."""
    rows, columns = features.shape
    if rows == 0:
        return
    with launching_on(features):
        by_class, chunk_rows = len(count) <= rows, config.chunk_rows
        windows = triton.cdiv(rows, chunk_rows) if rows > chunk_rows else 0
        lines = 2 * windows + (len(count) if by_class else rows)
        order, table = _order(labels, count, ignore_index, config, windows, lines, by_class=by_class, fresh=fresh)
        if columns == 0:
            return
        tile_rows, width = config.tile
        panels = triton.cdiv(columns, width)
        partial = mean.new_empty(2 * windows, 3, columns) if windows else mean
        moments_of_lines[(lines * panels,)](
            features, *features.stride(), columns, order, table, 2 * windows, chunk_rows, panels, mean, m2, partial,
            tile_rows, width, by_class, fresh, num_warps=config.warps,
        )  # fmt: skip
        if windows:
            width = 32
            panels = triton.cdiv(columns, width)
            merge_chunks[(windows * panels,)](
                columns, table, 2 * windows, chunk_rows, panels, mean, m2, partial,
                8, width, by_class, fresh, num_warps=4,
            )  # fmt: skip


def _order(
    labels: Tensor,
    count: Tensor,
    ignore_index: int,
    config: Config,
    windows: int,
    lines: int,
    *,
    by_class: bool,
    fresh: bool,
) -> tuple[Tensor, Tensor]:
    """Return `order` and `table` of triton_order.py, and update `count`."""
    rows, num_classes, chunk_rows = len(labels), len(count), config.chunk_rows
    arguments = (labels, labels.stride(0), rows, num_classes, ignore_index)
    # Every line of a class is written where there is one for each, and lines of chunks only where one begins.
    make_table = torch.empty if by_class and windows == 0 and config.way != "sort" else torch.zeros
    table = make_table(lines, _LINE, dtype=torch.int64, device=labels.device)
    order = torch.empty(rows, dtype=torch.int32, device=labels.device)
    if config.way == "pairs":
        blocks = triton.cdiv(rows, _PAIRS)
        order_kernels.order_by_pairs[(blocks + (triton.cdiv(num_classes, _PAIRS) if by_class else 0),)](
            *arguments, order, table, count, blocks, 2 * windows, chunk_rows,
            windows > 0, by_class, fresh, _PAIRS, 4 * _COMPARED, num_warps=4,
        )  # fmt: skip
    elif config.way == "count":
        blocks, bins = triton.cdiv(rows, _COUNTED), triton.next_power_of_2(num_classes + 1)
        totals = torch.zeros(num_classes, dtype=torch.int32, device=labels.device)
        histogram = torch.empty(blocks, num_classes, dtype=torch.int32, device=labels.device)
        order_kernels.count_labels[(blocks,)](*arguments, histogram, totals, bins, _COUNTED, num_warps=4)
        order_kernels.start_classes[(num_classes,)](
            histogram, blocks, num_classes, totals, table, 2 * windows, count, fresh, bins, 1024, num_warps=4
        )
        order_kernels.place_rows[(blocks,)](
            *arguments, histogram, order, table, 2 * windows, chunk_rows, _COUNTED, _COMPARED, num_warps=8
        )
    else:
        keys = torch.empty(rows, dtype=torch.int16 if num_classes < 2**15 else torch.int32, device=labels.device)
        grid = (triton.cdiv(rows, _LISTED),)
        order_kernels.make_keys[grid](*arguments, keys, _LISTED, num_warps=4)
        keys, order = keys.sort(stable=True)
        order_kernels.list_sorted[grid](
            keys, rows, num_classes, rows.bit_length(), table, 2 * windows, chunk_rows, count,
            by_class, fresh, _LISTED, num_warps=4,
        )  # fmt: skip
    return order, table
