"""Triton kernels of class_logits: tiles of whole rows, long rows one by one, and what all its kernels share.

With p = softmax(z), m the largest logit of a row, e_k = exp(z_k - m) and s the sum of e_k: loss = log s - (z_y - m),
confidence = e_y / s, margin = z_y - max_{k != y} z_k. The label's logit is read by itself and is -inf among the others:
then neither the margin nor the sums of p over rows of other classes have to leave it out a second time.
"""

# What Triton compiles has no types of Python.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import libdevice

_FAST = tl.constexpr(not triton.knobs.runtime.interpret)


@triton.jit
def exponential(x):
    """Return exp(x); results below float32's normal numbers are 0, which saves half of the instructions."""
    if _FAST:
        return libdevice.fast_expf(x)
    return tl.exp(x)


@triton.jit
def reciprocal(x):
    """Return 1 / x, correctly rounded."""
    return tl.div_rn(1.0, x)


@triton.jit
def rows_of(tile, ROWS: tl.constexpr):
    """Return the int64 numbers of the rows of a tile (a loop's variable, which the interpreter has as an int)."""
    return (tl.zeros([ROWS], tl.int64) + tile) * ROWS + tl.arange(0, ROWS)


@triton.jit
def counted_labels(labels, n, num_rows, stride, ignore_index, NUM_CLASSES: tl.constexpr):
    """Return whether rows `n` count, and their labels; 0 where not. A label out of range counts nowhere."""
    y = tl.load(labels + n * stride, mask=n < num_rows, other=-1)
    counts = (y >= 0) & (y < NUM_CLASSES) & (y != ignore_index)
    return counts, tl.where(counts, y, 0).to(tl.int32)


@triton.jit
def add_rows(
    sums, rows, n, counts, y, loss, margin, confidence, prediction, end, num_rows, NUM_CLASSES: tl.constexpr,
    DETERMINISTIC: tl.constexpr,
):  # fmt: skip
    """Add rows before `end` to the sums of their labels; DETERMINISTIC: leave `rows` [4, N] to `sum_by_label`."""
    loss, margin, confidence = loss.to(tl.float64), margin.to(tl.float64), confidence.to(tl.float64)
    if DETERMINISTIC:
        tl.store(rows + n, loss, mask=n < end)
        tl.store(rows + num_rows + n, margin, mask=n < end)
        tl.store(rows + 2 * num_rows + n, confidence, mask=n < end)
        tl.store(rows + 3 * num_rows + n, prediction.to(tl.float64), mask=n < end)
    else:
        one = tl.full(loss.shape, 1, tl.float64)
        tl.atomic_add(sums + y, one, mask=counts, sem="relaxed")
        tl.atomic_add(sums + NUM_CLASSES + y, loss, mask=counts, sem="relaxed")
        tl.atomic_add(sums + 2 * NUM_CLASSES + y, one, mask=counts & (prediction == y), sem="relaxed")
        tl.atomic_add(sums + 3 * NUM_CLASSES + y, margin, mask=counts, sem="relaxed")
        tl.atomic_add(sums + 4 * NUM_CLASSES + y, confidence, mask=counts, sem="relaxed")
        tl.atomic_add(sums + 5 * NUM_CLASSES + prediction, one, mask=counts, sem="relaxed")
        tl.atomic_add(sums + 6 * NUM_CLASSES + y, 1 - confidence, mask=counts, sem="relaxed")


@triton.jit
def add_columns(sums, columns, part, k, total, NUM_CLASSES: tl.constexpr, PARTS: tl.constexpr):
    """Add sums of p of classes `k`; PARTS: leave them in row `part` of `columns` [parts, C] to `sum_parts`."""
    if PARTS:
        tl.store(columns + part.to(tl.int64) * NUM_CLASSES + k, total, mask=k < NUM_CLASSES)
    else:
        tl.atomic_add(sums + 7 * NUM_CLASSES + k, total.to(tl.float64), mask=k < NUM_CLASSES, sem="relaxed")


@triton.jit(do_not_specialize=["num_rows", "rows_of_program", "ignore_index"])
def tiles_of_rows(
    logits, labels, sums, rows, columns, num_rows, rows_of_program, row_stride, column_stride, label_stride,
    ignore_index, NUM_CLASSES: tl.constexpr, CLASSES: tl.constexpr, GROUP: tl.constexpr, ALIGN: tl.constexpr,
    DETERMINISTIC: tl.constexpr, PARTS: tl.constexpr, COPIES: tl.constexpr,
):  # fmt: skip
    """Add rows, `rows_of_program` neighbours a program, to `sums` [8, C]; CLASSES is a power of two that holds a row.

    GROUP rows are read at a time, and the next are on their way meanwhile. `row_stride` counts ALIGN elements, to which
    rows are aligned. PARTS: each program's sums of p are written to `columns` [programs, C]; DETERMINISTIC: and what
    rows come to to `rows` [4, N]. Programs take turns in COPIES of `sums`, [COPIES, 8, C]: additions to one number wait
    for each other.
    """
    k = tl.arange(0, CLASSES)[None, :]
    sums += tl.program_id(0) % COPIES * 8 * NUM_CLASSES
    total = tl.zeros([GROUP, CLASSES], tl.float32)
    first_row = tl.program_id(0).to(tl.int64) * rows_of_program
    end = tl.minimum(first_row + rows_of_program, num_rows)
    n = first_row + tl.arange(0, GROUP)
    at = logits + (n * row_stride * ALIGN)[:, None] + k.to(tl.int64) * column_stride
    z_next = tl.load(at, mask=(n < end)[:, None] & (k < NUM_CLASSES), other=-float("inf"))
    counts_next, y_next = counted_labels(labels, n, end, label_stride, ignore_index, NUM_CLASSES)
    while first_row < end:
        n = first_row + tl.arange(0, GROUP)
        z, counts, y = z_next.to(tl.float32), counts_next, y_next
        at_label = logits + n * row_stride * ALIGN + y.to(tl.int64) * column_stride
        z_y = tl.load(at_label, mask=counts, other=0.0).to(tl.float32)
        at = logits + ((n + GROUP) * row_stride * ALIGN)[:, None] + k.to(tl.int64) * column_stride
        z_next = tl.load(at, mask=(n + GROUP < end)[:, None] & (k < NUM_CLASSES), other=-float("inf"))
        counts_next, y_next = counted_labels(labels, n + GROUP, end, label_stride, ignore_index, NUM_CLASSES)
        others = tl.where(k == y[:, None], -float("inf"), z)

        best_other = tl.max(others, 1)
        m = tl.maximum(best_other, z_y)
        e = exponential(others - m[:, None])
        e_y = exponential(z_y - m)
        s = tl.sum(e, 1) + e_y
        first_best = tl.min(tl.where(others == m[:, None], k, NUM_CLASSES), 1)
        prediction = tl.where(z_y == m, tl.minimum(first_best, y), first_best)
        scale = tl.where(counts, reciprocal(s), 0.0)
        if tl.max((s != s).to(tl.int32), 0) > 0:  # a row holds NaN or +inf, or nothing but -inf
            # read again, so that what was compared with it need not be kept for here
            y_again = tl.load(labels + n * label_stride, mask=counts, other=0, volatile=True).to(tl.int32)
            zero = (k == y_again[:, None]) | (counts == 0)[:, None]
            e = tl.where((s != s)[:, None], tl.where(zero, 0.0, float("nan")), e)
            scale = tl.where(s != s, 1.0, scale)
            first_nan = tl.min(tl.where(others != others, k, NUM_CLASSES), 1)
            best_other = tl.where(first_nan < NUM_CLASSES, float("nan"), best_other)
            first_nan = tl.where(z_y != z_y, tl.minimum(first_nan, y_again), first_nan)
            prediction = tl.where(first_nan < NUM_CLASSES, first_nan, prediction)
        total += e * scale[:, None]
        confidence = e_y * reciprocal(s)
        add_rows(
            sums, rows, n, counts, y, tl.log(s) - (z_y - m), z_y - best_other, confidence, prediction, end, num_rows,
            NUM_CLASSES, DETERMINISTIC,
        )  # fmt: skip
        first_row += GROUP
    # each row of a tile has had its sum of few terms: float64 before these are added
    total = tl.sum(total.to(tl.float64), 0)
    add_columns(sums, columns, tl.program_id(0), tl.arange(0, CLASSES), total, NUM_CLASSES, PARTS)
