"""Triton kernel of class_logits for long rows, one at a time: what a row comes to is worked out for a group of rows."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"  # what Triton compiles has no types of Python

from __future__ import annotations

import triton
import triton.language as tl

from imbdyn.ops.class_logits.triton_kernels import add_columns, add_rows, counted_labels, exponential


@triton.jit(do_not_specialize=["num_rows", "ignore_index"])
def long_rows(
    logits, labels, sums, rows, columns, num_rows, row_stride, column_stride, label_stride, ignore_index,
    NUM_CLASSES: tl.constexpr, CLASSES: tl.constexpr, GROUP: tl.constexpr, ALIGN: tl.constexpr,
    DETERMINISTIC: tl.constexpr,
):  # fmt: skip
    """Add rows to `sums` [8, C], by groups of GROUP; CLASSES is a power of two that holds a row.

    `row_stride` counts ALIGN elements, to which rows are aligned. DETERMINISTIC: `rows` [4, N] and each program's sums
    of p, `columns` [programs, C], are written instead of `sums`.
    """
    REAL: tl.constexpr = tl.float64 if logits.dtype.element_ty == tl.float64 else tl.float32
    k = tl.arange(0, CLASSES)
    lane = tl.arange(0, GROUP)
    total = tl.zeros([CLASSES], REAL)
    first_row = tl.program_id(0).to(tl.int64) * GROUP
    while first_row < num_rows:
        n = first_row + lane
        counts, y = counted_labels(labels, n, num_rows, label_stride, ignore_index, NUM_CLASSES)
        at_label = logits + n * row_stride * ALIGN + y.to(tl.int64) * column_stride
        z_y = tl.load(at_label, mask=counts, other=0.0).to(REAL)
        s = tl.full([GROUP], 1, REAL)
        best_other = tl.full([GROUP], -float("inf"), REAL)
        prediction = tl.zeros([GROUP], tl.int32)
        for i in range(GROUP):
            row = first_row + i
            counts_i, y_i = counted_labels(labels, row, num_rows, label_stride, ignore_index, NUM_CLASSES)
            start = logits + row * row_stride * ALIGN
            # a row that does not count is 0 at its label and -inf elsewhere: finite, and no p among the others
            z_y_i = tl.load(start + y_i.to(tl.int64) * column_stride, mask=counts_i, other=0.0).to(REAL)
            at = start + k.to(tl.int64) * column_stride
            z = tl.load(at, mask=counts_i & (k < NUM_CLASSES), other=-float("inf")).to(REAL)
            others = tl.where(k == y_i, -float("inf"), z)
            best_i = tl.max(others, 0)
            m = tl.maximum(best_i, z_y_i)
            e = exponential(others - m)
            s_i = tl.sum(e, 0) + exponential(z_y_i - m)
            first = tl.min(tl.where(others == m, k, CLASSES), 0)
            first = tl.where(z_y_i == m, tl.minimum(first, y_i), first)
            scale = 1 / s_i
            if s_i != s_i:  # the row holds NaN or +inf, or nothing but -inf
                e = tl.where(k == y_i, 0.0, float("nan")).to(REAL)
                scale = tl.full([], 1, REAL)
                first_nan = tl.min(tl.where(others != others, k, CLASSES), 0)
                best_i = tl.where(first_nan < CLASSES, float("nan"), best_i)
                first_nan = tl.where(z_y_i != z_y_i, tl.minimum(first_nan, y_i), first_nan)
                first = tl.where(first_nan < CLASSES, first_nan, first)
            total += e * scale
            s = tl.where(lane == i, s_i, s)
            best_other = tl.where(lane == i, best_i, best_other)
            prediction = tl.where(lane == i, first, prediction)
        m = tl.maximum(best_other, z_y)
        loss = tl.log(s) - (z_y - m)
        confidence = exponential(z_y - m) / s
        add_rows(
            sums, rows, n, counts, y, loss, z_y - best_other, confidence, prediction, num_rows, NUM_CLASSES,
            DETERMINISTIC,
        )  # fmt: skip
        first_row += tl.num_programs(0) * GROUP
    add_columns(sums, columns, tl.program_id(0), k, total, NUM_CLASSES, DETERMINISTIC)
