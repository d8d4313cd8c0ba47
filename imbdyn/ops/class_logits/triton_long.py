"""Triton kernel of class_logits for long rows, one at a time: what a row comes to is worked out for a group of rows."""

# What Triton compiles has no types of Python.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from imbdyn.ops.class_logits.triton_kernels import add_columns, add_rows, counted_labels, exponential, reciprocal


@triton.jit(do_not_specialize=["num_rows", "rows_of_program", "ignore_index"])
def long_rows(
    logits, labels, sums, rows, columns, num_rows, rows_of_program, row_stride, column_stride, label_stride,
    ignore_index, NUM_CLASSES: tl.constexpr, CLASSES: tl.constexpr, GROUP: tl.constexpr, ALIGN: tl.constexpr,
    DETERMINISTIC: tl.constexpr, PARTS: tl.constexpr, COPIES: tl.constexpr,
):  # fmt: skip
    """Add rows, `rows_of_program` neighbours a program, to `sums` [8, C]; CLASSES is a power of two that holds a row.

    `row_stride` counts ALIGN elements, to which rows are aligned. PARTS: each program's sums of p are written to
    `columns` [programs, C]; DETERMINISTIC: and what rows come to to `rows` [4, N]. Programs take turns in COPIES of
    `sums`, [COPIES, 8, C]: additions to one number wait for each other.
    """
    k = tl.arange(0, CLASSES)
    sums += tl.program_id(0) % COPIES * 8 * NUM_CLASSES
    lane = tl.arange(0, GROUP)
    total = tl.zeros([CLASSES], tl.float32)
    first_row = tl.program_id(0).to(tl.int64) * rows_of_program
    end = tl.minimum(first_row + rows_of_program, num_rows)
    columns_of_row = k.to(tl.int64) * column_stride
    start = logits + first_row * row_stride * ALIGN
    z_next = tl.load(start + columns_of_row, mask=(k < NUM_CLASSES) & (first_row < end), other=-float("inf"))
    while first_row < end:
        n = first_row + lane
        counts, y = counted_labels(labels, n, end, label_stride, ignore_index, NUM_CLASSES)
        at_label = logits + n * row_stride * ALIGN + y.to(tl.int64) * column_stride
        z_y = tl.load(at_label, mask=counts, other=0.0).to(tl.float32)
        s = tl.full([GROUP], 1, tl.float32)
        best_other = tl.full([GROUP], -float("inf"), tl.float32)
        prediction = tl.zeros([GROUP], tl.int32)
        for i in range(GROUP):
            row = first_row + i
            z = z_next.to(tl.float32)
            # the next row is on its way while this one is read
            start = logits + (row + 1) * row_stride * ALIGN
            z_next = tl.load(start + columns_of_row, mask=(k < NUM_CLASSES) & (row + 1 < end), other=-float("inf"))
            counts_i, y_i = counted_labels(labels, row, end, label_stride, ignore_index, NUM_CLASSES)
            at_label_i = logits + row * row_stride * ALIGN + y_i.to(tl.int64) * column_stride
            z_y_i = tl.load(at_label_i, mask=counts_i, other=0.0).to(tl.float32)
            others = tl.where(k == y_i, -float("inf"), z)
            best_i = tl.max(others, 0)
            m = tl.maximum(best_i, z_y_i)
            e = exponential(others - m)
            s_i = tl.sum(e, 0) + exponential(z_y_i - m)
            first = tl.min(tl.where(others == m, k, NUM_CLASSES), 0)
            first = tl.where(z_y_i == m, tl.minimum(first, y_i), first)
            scale = tl.where(counts_i, reciprocal(s_i), 0.0)
            if s_i != s_i:  # the row holds NaN or +inf, or nothing but -inf
                # read again, so that what was compared with it need not be kept for here
                y_i = tl.load(labels + row * label_stride, volatile=True).to(tl.int32)
                e = tl.where((k == y_i) | (counts_i == 0), 0.0, float("nan")).to(tl.float32)
                scale = tl.full([], 1, tl.float32)
                first_nan = tl.min(tl.where(others != others, k, NUM_CLASSES), 0)
                best_i = tl.where(first_nan < NUM_CLASSES, float("nan"), best_i)
                first_nan = tl.where(z_y_i != z_y_i, tl.minimum(first_nan, y_i), first_nan)
                first = tl.where(first_nan < NUM_CLASSES, first_nan, first)
            total += e * scale
            s = tl.where(lane == i, s_i, s)
            best_other = tl.where(lane == i, best_i, best_other)
            prediction = tl.where(lane == i, first, prediction)
        m = tl.maximum(best_other, z_y)
        loss = tl.log(s) - (z_y - m)
        confidence = exponential(z_y - m) * reciprocal(s)
        add_rows(
            sums, rows, n, counts, y, loss, z_y - best_other, confidence, prediction, end, num_rows, NUM_CLASSES,
            DETERMINISTIC,
        )  # fmt: skip
        first_row += GROUP
    add_columns(sums, columns, tl.program_id(0), k, total, NUM_CLASSES, PARTS)
