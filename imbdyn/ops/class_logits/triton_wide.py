"""Triton kernels of class_logits for rows wider than a block: an online softmax, then the sums of its p by class."""

# What Triton compiles has no types of Python.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from imbdyn.ops.class_logits.triton_kernels import (
    add_columns,
    add_rows,
    counted_labels,
    exponential,
    reciprocal,
    rows_of,
)


@triton.jit(do_not_specialize=["num_rows", "ignore_index"])
def wide_rows(
    logits, labels, sums, rows, softmax, num_rows, row_stride, column_stride, label_stride, ignore_index,
    NUM_CLASSES: tl.constexpr, CLASSES: tl.constexpr, ALIGN: tl.constexpr, STAGES: tl.constexpr,
    DETERMINISTIC: tl.constexpr,
):  # fmt: skip
    """Add a row to the sums of its label, CLASSES logits at a time; leave m and 1 / s in `softmax` [2, N]."""
    n = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    within = n < num_rows
    counts, y = counted_labels(labels, n, num_rows, label_stride, ignore_index, NUM_CLASSES)
    start = logits + n * row_stride * ALIGN
    z_y = tl.load(start + y.to(tl.int64) * column_stride, mask=counts, other=0.0).to(tl.float32)
    block = tl.arange(0, CLASSES)[None, :]
    best = tl.full([1, CLASSES], -float("inf"), tl.float32)
    block_of_best = tl.zeros([1, CLASSES], tl.int32)
    s_of_lane = tl.zeros([1, CLASSES], tl.float32)
    m = z_y
    for first in tl.range(0, NUM_CLASSES, CLASSES, num_stages=STAGES):
        k = first + block
        at = start[:, None] + k.to(tl.int64) * column_stride
        z = tl.load(at, mask=within[:, None] & (k < NUM_CLASSES), other=-float("inf")).to(tl.float32)
        others = tl.where(k == y[:, None], -float("inf"), z)
        block_of_best = tl.where(others > best, first, block_of_best)
        best = tl.maximum(best, others)
        higher = tl.maximum(m, tl.max(others, 1))
        # nothing but -inf so far: the sum stays 0, since what comes may be finite
        shift = tl.where(higher == -float("inf"), 0.0, higher)
        s_of_lane = s_of_lane * exponential(m - shift)[:, None] + exponential(others - shift[:, None])
        m = higher
    best_other = tl.max(best, 1)
    e_y = exponential(z_y - m)
    s = tl.sum(s_of_lane, 1) + e_y
    first_best = tl.min(tl.where(best == m[:, None], block_of_best + block, NUM_CLASSES), 1)
    prediction = tl.where(z_y == m, tl.minimum(first_best, y), first_best)
    if tl.max((s != s).to(tl.int32), 0) > 0:  # the row holds NaN or +inf, or nothing but -inf
        first_nan = tl.where(z_y != z_y, y, NUM_CLASSES)
        other_nan = tl.zeros([1], tl.int32)
        for first in range(0, NUM_CLASSES, CLASSES):
            k = first + block
            at = start[:, None] + k.to(tl.int64) * column_stride
            z = tl.load(at, mask=counts[:, None] & (k < NUM_CLASSES), other=0.0).to(tl.float32)
            is_nan = (z != z) & (k != y[:, None])
            other_nan = tl.maximum(other_nan, tl.max(is_nan.to(tl.int32), 1))
            first_nan = tl.minimum(first_nan, tl.min(tl.where(is_nan, k, NUM_CLASSES), 1))
        best_other = tl.where(other_nan > 0, float("nan"), best_other)
        prediction = tl.where(first_nan < NUM_CLASSES, first_nan, prediction)
    tl.store(softmax + n, m, mask=within)
    tl.store(softmax + num_rows + n, reciprocal(s), mask=within)
    add_rows(
        sums, rows, n, counts, y, tl.log(s) - (z_y - m), z_y - best_other, e_y * reciprocal(s), prediction, num_rows,
        num_rows, NUM_CLASSES, DETERMINISTIC,
    )  # fmt: skip


@triton.jit(do_not_specialize=["num_rows", "ignore_index"])
def wide_columns(
    logits, labels, sums, softmax, columns, num_rows, row_stride, column_stride, label_stride, ignore_index,
    NUM_CLASSES: tl.constexpr, CLASSES: tl.constexpr, ROWS: tl.constexpr, ALIGN: tl.constexpr, STAGES: tl.constexpr,
    PARTS: tl.constexpr,
):  # fmt: skip
    """Sum p over rows of other classes, CLASSES at a time, by what `wide_rows` has left in `softmax` [2, N]."""
    k = tl.program_id(0) * CLASSES + tl.arange(0, CLASSES)
    part = tl.program_id(1)
    total = tl.zeros([ROWS, CLASSES], tl.float32)
    for tile in tl.range(part, tl.cdiv(num_rows, ROWS), tl.num_programs(1), num_stages=STAGES):
        n = rows_of(tile, ROWS)
        within = n < num_rows
        counts, y = counted_labels(labels, n, num_rows, label_stride, ignore_index, NUM_CLASSES)
        m = tl.load(softmax + n, mask=within, other=0.0)
        scale = tl.load(softmax + num_rows + n, mask=within, other=0.0)
        at = logits + (n * row_stride * ALIGN)[:, None] + (k.to(tl.int64) * column_stride)[None, :]
        # not where the label counts alone: no logit waits for a label
        z = tl.load(at, mask=within[:, None] & (k < NUM_CLASSES)[None, :], other=0.0).to(tl.float32)
        p = exponential(z - m[:, None]) * scale[:, None]
        total += tl.where(counts[:, None] & (k < NUM_CLASSES)[None, :] & (k[None, :] != y[:, None]), p, 0.0)
    add_columns(sums, columns, part, k, tl.sum(total.to(tl.float64), 0), NUM_CLASSES, PARTS)
