"""Triton kernel of class_logits for few classes: a row is a thread's, and so are its sums for all classes."""

# What Triton compiles has no types of Python.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from imbdyn.ops.class_logits.triton_kernels import counted_labels, exponential, reciprocal

#: Rows that a thread may count: count, correct and predicted share an integer, ten bits each.
MOST_ROWS_OF_THREAD = 1023


@triton.jit
def _add(sums, part, k, total, NUM_CLASSES: tl.constexpr, DETERMINISTIC: tl.constexpr):
    """Add what a program has for a field; DETERMINISTIC: store it in `part` of it."""
    if DETERMINISTIC:
        tl.store(sums + part * 8 * NUM_CLASSES + k, total.to(tl.float64), mask=k < NUM_CLASSES)
    else:
        tl.atomic_add(sums + k, total.to(tl.float64), mask=k < NUM_CLASSES, sem="relaxed")


@triton.jit(do_not_specialize=["num_rows", "row_stride", "column_stride", "ignore_index"])
def few_classes(
    logits, labels, sums, num_rows, row_stride, column_stride, label_stride, ignore_index,
    NUM_CLASSES: tl.constexpr, CLASSES: tl.constexpr, ROWS: tl.constexpr, DETERMINISTIC: tl.constexpr,
):  # fmt: skip
    """Add rows, ROWS at a time, to `sums` [8, C]; DETERMINISTIC: store each program's in `sums` [programs, 8, C].

    That strides are not specialised hides from the compiler that classes are neighbours in memory: it would lay a row
    over several threads. CLASSES is a power of two; what `exists` makes a constant is not computed.
    """
    k = tl.arange(0, CLASSES)[:, None]
    exists = k < NUM_CLASSES
    loss_sum = tl.zeros([CLASSES, ROWS], tl.float32)
    margin_sum = tl.zeros([CLASSES, ROWS], tl.float32)
    confidence_sum = tl.zeros([CLASSES, ROWS], tl.float32)
    negative = tl.zeros([CLASSES, ROWS], tl.float32)
    counters = tl.zeros([CLASSES, ROWS], tl.int32)
    step = tl.num_programs(0).to(tl.int64) * ROWS
    n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns_of_row = k.to(tl.int64) * column_stride
    at = logits + (n * row_stride)[None, :] + columns_of_row
    z_next = tl.load(at, mask=(n < num_rows)[None, :] & exists, other=-float("inf"))
    counts_next, y_next = counted_labels(labels, n, num_rows, label_stride, ignore_index, NUM_CLASSES)
    for _ in range(tl.program_id(0), tl.cdiv(num_rows, ROWS), tl.num_programs(0)):
        z, counts, y = z_next.to(tl.float32), counts_next, y_next
        # the next rows are on their way while these are read
        n += step
        at = logits + (n * row_stride)[None, :] + columns_of_row
        z_next = tl.load(at, mask=(n < num_rows)[None, :] & exists, other=-float("inf"))
        counts_next, y_next = counted_labels(labels, n, num_rows, label_stride, ignore_index, NUM_CLASSES)
        is_label = (k == y[None, :]) & counts[None, :]
        z_y = tl.sum(tl.where(is_label & exists, z, 0.0), 0)
        others = tl.where(is_label | (k >= NUM_CLASSES), -float("inf"), z)

        best_other = tl.max(others, 0)
        m = tl.maximum(best_other, z_y)
        e = tl.where(exists, exponential(others - m[None, :]), 0.0)
        e_y = exponential(z_y - m)
        s = tl.sum(e, 0) + e_y
        first_best = tl.min(tl.where((others == m[None, :]) & exists, k, NUM_CLASSES), 0)
        prediction = tl.where(z_y == m, tl.minimum(first_best, y), first_best)
        scale = reciprocal(s)
        confidence = e_y * scale
        scale = tl.where(counts, scale, 0.0)
        if tl.max((s != s).to(tl.int32), 0) > 0:  # a row holds NaN or +inf, or nothing but -inf
            e = tl.where((s != s)[None, :], tl.where(is_label | (counts == 0)[None, :], 0.0, float("nan")), e)
            scale = tl.where(s != s, 1.0, scale)
            first_nan = tl.min(tl.where((others != others) & exists, k, NUM_CLASSES), 0)
            best_other = tl.where(first_nan < NUM_CLASSES, float("nan"), best_other)
            first_nan = tl.where(z_y != z_y, tl.minimum(first_nan, y), first_nan)
            prediction = tl.where(first_nan < NUM_CLASSES, first_nan, prediction)
        negative += e * scale[None, :]
        loss_sum += tl.where(is_label, (tl.log(s) - (z_y - m))[None, :], 0.0)
        margin_sum += tl.where(is_label, (z_y - best_other)[None, :], 0.0)
        confidence_sum += tl.where(is_label, confidence[None, :], 0.0)
        counters += tl.where(is_label, tl.where(prediction == y, 1 + (1 << 10), 1)[None, :], 0)
        counters += tl.where((k == prediction[None, :]) & counts[None, :], 1 << 20, 0)
    k = tl.arange(0, CLASSES)
    part = tl.program_id(0).to(tl.int64)
    # sums of a thread's rows, and now those of ROWS threads, before float64 takes over
    count = tl.sum(counters & 1023, 1)
    of_confidence = tl.sum(confidence_sum, 1)
    _add(sums, part, k, count, NUM_CLASSES, DETERMINISTIC)
    _add(sums + NUM_CLASSES, part, k, tl.sum(loss_sum, 1), NUM_CLASSES, DETERMINISTIC)
    _add(sums + 2 * NUM_CLASSES, part, k, tl.sum((counters >> 10) & 1023, 1), NUM_CLASSES, DETERMINISTIC)
    _add(sums + 3 * NUM_CLASSES, part, k, tl.sum(margin_sum, 1), NUM_CLASSES, DETERMINISTIC)
    _add(sums + 4 * NUM_CLASSES, part, k, of_confidence, NUM_CLASSES, DETERMINISTIC)
    _add(sums + 5 * NUM_CLASSES, part, k, tl.sum(counters >> 20, 1), NUM_CLASSES, DETERMINISTIC)
    positive = count.to(tl.float64) - of_confidence.to(tl.float64)
    _add(sums + 6 * NUM_CLASSES, part, k, positive, NUM_CLASSES, DETERMINISTIC)
    _add(sums + 7 * NUM_CLASSES, part, k, tl.sum(negative, 1), NUM_CLASSES, DETERMINISTIC)
