"""Triton kernel of class_logits for few classes: a row is a thread's, and so are its sums for all classes.

Every number of a row is a tensor [ROWS] of its own, in a tuple: of one tensor [CLASSES, ROWS] it is the compiler that
chooses whether a row lies in one thread, and Triton 3.6 chooses otherwise than 3.7.
"""

# What Triton compiles has no types of Python.
# mypy: disable-error-code="no-untyped-def, assignment"
# Nor does it unpack tuples.
# ruff: noqa: RUF005

from __future__ import annotations

import triton
import triton.language as tl

from imbdyn.ops.class_logits.triton_kernels import counted_labels, exponential, reciprocal

#: Rows that a thread may count: count, correct and predicted share an integer, ten bits each.
MOST_ROWS_OF_THREAD = 1023


@triton.jit
def _add(sums, part, place: tl.constexpr, total, NUM_CLASSES: tl.constexpr, DETERMINISTIC: tl.constexpr):
    """Add what a program has for a place in [8, C]; DETERMINISTIC: store it in `part` of it."""
    if DETERMINISTIC:
        tl.store(sums + part * 8 * NUM_CLASSES + place, total.to(tl.float64))
    else:
        tl.atomic_add(sums + place, total.to(tl.float64), sem="relaxed")


@triton.jit
def _read(at, within, column_stride, NUM_CLASSES: tl.constexpr, PIECE: tl.constexpr):
    """Return the logits of rows that begin `at`, a tensor a class; PIECE neighbours are read at once."""
    z = ()
    for first in tl.static_range(0, NUM_CLASSES, PIECE):
        if PIECE == 1:
            k = tl.full([], first, tl.int64)  # a column's place may be behind 2^31
            z = z + (tl.load(at + k * column_stride, mask=within, other=0.0).to(tl.float32),)
        else:
            k = first + tl.arange(0, PIECE)
            piece = tl.load(at[:, None] + k[None, :], mask=within[:, None], other=0.0).to(tl.float32)
            if PIECE == 2:
                z0, z1 = tl.split(piece)
                z = z + (z0, z1)
            else:
                even, odd = tl.split(tl.reshape(piece, [piece.shape[0], 2, 2]))
                z0, z2 = tl.split(even)
                z1, z3 = tl.split(odd)
                z = z + (z0, z1, z2, z3)
    return z


@triton.jit(do_not_specialize=["num_rows", "ignore_index"])
def few_classes(
    logits, labels, sums, num_rows, row_stride, column_stride, label_stride, ignore_index,
    NUM_CLASSES: tl.constexpr, ROWS: tl.constexpr, PIECE: tl.constexpr, DETERMINISTIC: tl.constexpr,
):  # fmt: skip
    """Add rows, ROWS at a time, to `sums` [8, C]; DETERMINISTIC: store each program's in `sums` [programs, 8, C].

    `row_stride` counts PIECE elements, to which rows are aligned, and of which a row is made; PIECE is 1, 2 or 4, and 1
    where `column_stride` is not 1.
    """
    zero = tl.zeros([ROWS], tl.float32)
    loss_sum = (zero,) * NUM_CLASSES
    margin_sum = (zero,) * NUM_CLASSES
    confidence_sum = (zero,) * NUM_CLASSES
    negative = (zero,) * NUM_CLASSES
    counters = (tl.zeros([ROWS], tl.int32),) * NUM_CLASSES
    step = tl.num_programs(0).to(tl.int64) * ROWS
    n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    z_next = _read(logits + n * row_stride * PIECE, n < num_rows, column_stride, NUM_CLASSES, PIECE)
    counts_next, y_next = counted_labels(labels, n, num_rows, label_stride, ignore_index, NUM_CLASSES)
    for _ in range(tl.program_id(0), tl.cdiv(num_rows, ROWS), tl.num_programs(0)):
        z, counts, y = z_next, counts_next, y_next
        # the next rows are on their way while these are read
        n += step
        z_next = _read(logits + n * row_stride * PIECE, n < num_rows, column_stride, NUM_CLASSES, PIECE)
        counts_next, y_next = counted_labels(labels, n, num_rows, label_stride, ignore_index, NUM_CLASSES)

        z_y = zero
        best_other = zero - float("inf")
        first_best = tl.zeros([ROWS], tl.int32)
        for k in tl.static_range(NUM_CLASSES):
            z_y = tl.where(y == k, z[k], z_y)
            other = tl.where(y == k, -float("inf"), z[k])
            first_best = tl.where(other > best_other, k, first_best)
            best_other = tl.maximum(best_other, other)
        m = tl.maximum(best_other, z_y)
        e = ()
        s = zero
        for k in tl.static_range(NUM_CLASSES):
            e_k = exponential(tl.where(y == k, -float("inf"), z[k]) - m)
            e = e + (e_k,)
            s += e_k
        e_y = exponential(z_y - m)
        s += e_y
        prediction = tl.where(z_y > best_other, y, tl.where(z_y == m, tl.minimum(first_best, y), first_best))
        scale = reciprocal(s)
        confidence = e_y * scale
        scale = tl.where(counts, scale, 0.0)
        odd = s != s
        if tl.max(odd.to(tl.int32), 0) > 0:  # a row holds NaN or +inf, or nothing but -inf
            other_nan = tl.zeros([ROWS], tl.int32)
            first_nan = tl.where(z_y != z_y, y, NUM_CLASSES)
            special = ()
            for k in tl.static_range(NUM_CLASSES):
                is_nan = (z[k] != z[k]) & (y != k)
                other_nan = tl.where(is_nan, 1, other_nan)
                first_nan = tl.where(is_nan, tl.minimum(first_nan, k), first_nan)
                special = special + (tl.where(odd, tl.where((y == k) | (counts == 0), 0.0, float("nan")), e[k]),)
            e = special
            scale = tl.where(odd, 1.0, scale)
            best_other = tl.where(other_nan > 0, float("nan"), best_other)
            prediction = tl.where(first_nan < NUM_CLASSES, first_nan, prediction)
        loss = tl.log(s) - (z_y - m)
        margin = z_y - best_other
        one = tl.where(prediction == y, 1 + (1 << 10), 1)
        # compared anew: to keep the comparisons of above for here costs as many instructions and registers
        y = tl.where(counts, y, NUM_CLASSES)
        prediction = tl.where(counts, prediction, NUM_CLASSES)
        sums_of_loss, sums_of_margin, sums_of_confidence, sums_of_p, counted = (), (), (), (), ()
        for k in tl.static_range(NUM_CLASSES):
            sums_of_p = sums_of_p + (negative[k] + e[k] * scale,)
            sums_of_loss = sums_of_loss + (loss_sum[k] + tl.where(y == k, loss, 0.0),)
            sums_of_margin = sums_of_margin + (margin_sum[k] + tl.where(y == k, margin, 0.0),)
            sums_of_confidence = sums_of_confidence + (confidence_sum[k] + tl.where(y == k, confidence, 0.0),)
            of_k = tl.where(y == k, one, 0) + tl.where(prediction == k, 1 << 20, 0)
            counted = counted + (counters[k] + of_k,)
        loss_sum, margin_sum, confidence_sum = sums_of_loss, sums_of_margin, sums_of_confidence
        negative, counters = sums_of_p, counted
    part = tl.program_id(0).to(tl.int64)
    # sums of a thread's rows, and now those of ROWS threads, before float64 takes over
    for k in tl.static_range(NUM_CLASSES):
        count = tl.sum(counters[k] & 1023, 0)
        of_confidence = tl.sum(confidence_sum[k], 0)
        positive = count.to(tl.float64) - of_confidence.to(tl.float64)
        _add(sums, part, k, count, NUM_CLASSES, DETERMINISTIC)
        _add(sums, part, NUM_CLASSES + k, tl.sum(loss_sum[k], 0), NUM_CLASSES, DETERMINISTIC)
        _add(sums, part, 2 * NUM_CLASSES + k, tl.sum((counters[k] >> 10) & 1023, 0), NUM_CLASSES, DETERMINISTIC)
        _add(sums, part, 3 * NUM_CLASSES + k, tl.sum(margin_sum[k], 0), NUM_CLASSES, DETERMINISTIC)
        _add(sums, part, 4 * NUM_CLASSES + k, of_confidence, NUM_CLASSES, DETERMINISTIC)
        _add(sums, part, 5 * NUM_CLASSES + k, tl.sum(counters[k] >> 20, 0), NUM_CLASSES, DETERMINISTIC)
        _add(sums, part, 6 * NUM_CLASSES + k, positive, NUM_CLASSES, DETERMINISTIC)
        _add(sums, part, 7 * NUM_CLASSES + k, tl.sum(negative[k], 0), NUM_CLASSES, DETERMINISTIC)
