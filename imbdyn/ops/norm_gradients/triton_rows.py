"""Triton kernel of norm_gradients_rows: rows are normalised by their own statistics in registers."""

# What Triton compiles has no types of Python.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["units", "rows", "of_part"])
def whole_rows(
    x, dy, weight, bias, kept, units, rows, columns, of_part, x_unit, x_row, x_column, dy_unit, dy_row, dy_column, eps,
    CENTRED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ALIGN: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """Sum dy * xhat and dy over `of_part` rows of a unit, ROWS at a time, to weight and bias [U, columns].

    If `kept` is not None, to it: [2 (bias, weight), U, parts, columns]. COLUMNS is a power of two that holds a row.
    Unit and row strides and `columns` count ALIGN elements. STAGES - 1 tiles of rows are on their way
    while one is read.
    """
    column = tl.arange(0, COLUMNS)[None, :]
    exists = column < columns * ALIGN
    unit = tl.program_id(0).to(tl.int64)
    start = tl.program_id(1) * of_part
    end = tl.minimum(start + of_part, rows)
    x_at = x + unit * x_unit * ALIGN + column.to(tl.int64) * x_column
    dy_at = dy + unit * dy_unit * ALIGN + column.to(tl.int64) * dy_column
    of_weight = tl.zeros([ROWS, COLUMNS], tl.float32)
    of_bias = tl.zeros([ROWS, COLUMNS], tl.float32)
    n = columns * ALIGN
    for first in tl.range(0, of_part, ROWS, num_stages=STAGES):
        row = start + first + tl.arange(0, ROWS)[:, None]
        within = (row < end) & exists
        row = row.to(tl.int64)
        d = tl.load(x_at + row * x_row * ALIGN, mask=within, other=0.0).to(tl.float32)
        g = tl.load(dy_at + row * dy_row * ALIGN, mask=within, other=0.0).to(tl.float32)
        if CENTRED:
            d = tl.where(within, d - (tl.sum(d, 1) / n)[:, None], 0.0)
            # what the mean lost when it was rounded: 1e4 has steps of 1e-3 in float32
            off = tl.sum(d, 1) / n
            variance = tl.sum(d * d, 1) / n - off * off
            xhat = (d - off[:, None]) * tl.div_rn(1.0, tl.sqrt_rn(variance + eps))[:, None]
        else:
            xhat = d * tl.div_rn(1.0, tl.sqrt_rn(tl.sum(d * d, 1) / n + eps))[:, None]
        of_weight += tl.where(within, g * xhat, 0.0)
        of_bias += g
    column = tl.arange(0, COLUMNS)
    inside = column < columns * ALIGN
    at = (unit * tl.num_programs(1) + tl.program_id(1)) * columns * ALIGN + column
    if kept is None:
        tl.store(bias + at, tl.sum(of_bias, 0), mask=inside)
        tl.store(weight + at, tl.sum(of_weight, 0), mask=inside)
    else:
        size = units.to(tl.int64) * tl.num_programs(1) * columns * ALIGN
        tl.store(kept + at, tl.sum(of_bias, 0), mask=inside)
        tl.store(kept + size + at, tl.sum(of_weight, 0), mask=inside)
