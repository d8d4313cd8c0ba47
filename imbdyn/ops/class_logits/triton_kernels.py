"""Triton kernels of class_logits: tiles of whole rows, long rows one by one, and what all its kernels share.

With p = softmax(z), m the largest logit of a row, e_k = exp(z_k - m) and s the sum of e_k: loss = log s - (z_y - m),
confidence = e_y / s, margin = z_y - max_{k != y} z_k. The label's logit is read by itself and is -inf among the others:
then neither the margin nor the sums of p over rows of other classes have to leave it out a second time.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"  # what Triton compiles has no types of Python

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import libdevice

_FAST = tl.constexpr(not triton.knobs.runtime.interpret)


@triton.jit
def exponential(x):
    """Return exp(x); of float32, results below its normal numbers are 0 (which saves half of the instructions)."""
    if _FAST and x.dtype == tl.float32:
        return libdevice.fast_expf(x)
    return tl.exp(x)


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
    sums, rows, n, counts, y, loss, margin, confidence, prediction, num_rows, NUM_CLASSES: tl.constexpr,
    DETERMINISTIC: tl.constexpr,
):  # fmt: skip
    """Add rows to the sums of their labels; DETERMINISTIC: leave `rows` [4, N] to `sum_by_label`."""
    loss, margin, confidence = loss.to(tl.float64), margin.to(tl.float64), confidence.to(tl.float64)
    if DETERMINISTIC:
        within = n < num_rows
        tl.store(rows + n, loss, mask=within)
        tl.store(rows + num_rows + n, margin, mask=within)
        tl.store(rows + 2 * num_rows + n, confidence, mask=within)
        tl.store(rows + 3 * num_rows + n, prediction.to(tl.float64), mask=within)
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
def add_columns(sums, columns, part, k, total, NUM_CLASSES: tl.constexpr, DETERMINISTIC: tl.constexpr):
    """Add sums of p of classes `k`; DETERMINISTIC: leave them in row `part` of `columns` [parts, C] to `sum_parts`."""
    total = total.to(tl.float64)
    if DETERMINISTIC:
        tl.store(columns + part.to(tl.int64) * NUM_CLASSES + k, total, mask=k < NUM_CLASSES)
    else:
        tl.atomic_add(sums + 7 * NUM_CLASSES + k, total, mask=k < NUM_CLASSES, sem="relaxed")


@triton.jit
def read_rows(others, z_y, k, y, NONE: tl.constexpr, AXIS: tl.constexpr):
    """Return p of the others and loss, margin, confidence, prediction of rows that lie along AXIS.

    `others` are their logits with -inf at the label, `k` the classes; no class is as large as NONE.
    """
    best_other = tl.max(others, AXIS)
    m = tl.maximum(best_other, z_y)
    e = exponential(others - tl.expand_dims(m, AXIS))
    e_y = exponential(z_y - m)
    s = tl.sum(e, AXIS) + e_y
    first_best = tl.min(tl.where(others == tl.expand_dims(m, AXIS), k, NONE), AXIS)
    prediction = tl.where(z_y == m, tl.minimum(first_best, y), first_best)
    scale = 1 / s
    if tl.max((s != s).to(tl.int32), 0) > 0:  # a row holds NaN or +inf, or nothing but -inf
        undefined = tl.expand_dims(s != s, AXIS)
        e = tl.where(undefined, tl.where(k == tl.expand_dims(y, AXIS), 0.0, float("nan")), e)
        scale = tl.where(s != s, 1.0, scale)
        first_nan = tl.min(tl.where(others != others, k, NONE), AXIS)
        best_other = tl.where(first_nan < NONE, float("nan"), best_other)
        first_nan = tl.where(z_y != z_y, tl.minimum(first_nan, y), first_nan)
        prediction = tl.where(first_nan < NONE, first_nan, prediction)
    return e * tl.expand_dims(scale, AXIS), tl.log(s) - (z_y - m), z_y - best_other, e_y / s, prediction


@triton.jit(do_not_specialize=["num_rows", "ignore_index"])
def tiles_of_rows(
    logits, labels, sums, rows, columns, num_rows, row_stride, column_stride, label_stride, ignore_index,
    NUM_CLASSES: tl.constexpr, CLASSES: tl.constexpr, ROWS: tl.constexpr, ALIGN: tl.constexpr,
    DETERMINISTIC: tl.constexpr,
):  # fmt: skip
    """Add rows, ROWS at a time, to `sums` [8, C]; CLASSES is a power of two that holds a row.

    `row_stride` counts ALIGN elements, to which rows are aligned.
    """
    REAL: tl.constexpr = tl.float64 if logits.dtype.element_ty == tl.float64 else tl.float32
    k = tl.arange(0, CLASSES)[None, :]
    total = tl.zeros([ROWS, CLASSES], REAL)
    for tile in range(tl.program_id(0), tl.cdiv(num_rows, ROWS), tl.num_programs(0)):
        n = rows_of(tile, ROWS)
        counts, y = counted_labels(labels, n, num_rows, label_stride, ignore_index, NUM_CLASSES)
        start = logits + n * row_stride * ALIGN
        # a row that does not count is 0 at its label and -inf elsewhere: finite, and no p among the others
        z_y = tl.load(start + y.to(tl.int64) * column_stride, mask=counts, other=0.0).to(REAL)
        at = start[:, None] + k.to(tl.int64) * column_stride
        z = tl.load(at, mask=counts[:, None] & (k < NUM_CLASSES), other=-float("inf")).to(REAL)
        others = tl.where(k == y[:, None], -float("inf"), z)
        p, loss, margin, confidence, prediction = read_rows(others, z_y, k, y, CLASSES, 1)
        total += p
        add_rows(sums, rows, n, counts, y, loss, margin, confidence, prediction, num_rows, NUM_CLASSES, DETERMINISTIC)
    # float64 before the rows of a tile are added: each has had its sum of at most MOST_TILES terms in float32
    total = tl.sum(total.to(tl.float64), 0)
    add_columns(sums, columns, tl.program_id(0), tl.arange(0, CLASSES), total, NUM_CLASSES, DETERMINISTIC)
