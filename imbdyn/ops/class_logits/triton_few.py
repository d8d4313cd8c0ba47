"""Triton kernel of class_logits for few classes: a row is a thread's, and so are its sums for all classes."""

# mypy: disable-error-code="no-untyped-def"
# (what Triton compiles has no types of Python)

from __future__ import annotations

import triton
import triton.language as tl

from imbdyn.ops.class_logits.triton_kernels import counted_labels, read_rows, rows_of

#: Rows that a thread may count: count, correct and predicted share an integer, ten bits each.
MOST_ROWS_OF_THREAD = 1023


@triton.jit
def _add(sums, part, k, value, NUM_CLASSES: tl.constexpr, DETERMINISTIC: tl.constexpr):
    """Add the sums over a program's rows, [CLASSES, ROWS], to a field; DETERMINISTIC: store them in `part` of it."""
    total = tl.sum(value.to(tl.float64), 1)
    if DETERMINISTIC:
        tl.store(sums + part * 8 * NUM_CLASSES + k, total, mask=k < NUM_CLASSES)
    else:
        tl.atomic_add(sums + k, total, mask=k < NUM_CLASSES, sem="relaxed")


@triton.jit(do_not_specialize=["num_rows", "row_stride", "column_stride", "ignore_index"])
def few_classes(
    logits, labels, sums, num_rows, row_stride, column_stride, label_stride, ignore_index,
    NUM_CLASSES: tl.constexpr, CLASSES: tl.constexpr, ROWS: tl.constexpr, DETERMINISTIC: tl.constexpr,
):  # fmt: skip
    """Add rows, ROWS at a time, to `sums` [8, C]; DETERMINISTIC: store each program's in `sums` [programs, 8, C].

    That strides are not specialised hides from the compiler that classes are neighbours in memory: it would lay a row
    over several threads. CLASSES is a power of two; what is computed for classes that do not exist is dead code.
    """
    REAL: tl.constexpr = tl.float64 if logits.dtype.element_ty == tl.float64 else tl.float32
    k = tl.arange(0, CLASSES)
    loss_sum = tl.zeros([CLASSES, ROWS], REAL)
    margin_sum = tl.zeros([CLASSES, ROWS], REAL)
    confidence_sum = tl.zeros([CLASSES, ROWS], REAL)
    negative = tl.zeros([CLASSES, ROWS], REAL)
    counters = tl.zeros([CLASSES, ROWS], tl.int32)
    for tile in range(tl.program_id(0), tl.cdiv(num_rows, ROWS), tl.num_programs(0)):
        n = rows_of(tile, ROWS)
        counts, y = counted_labels(labels, n, num_rows, label_stride, ignore_index, NUM_CLASSES)
        at = logits + (n * row_stride)[None, :] + (k.to(tl.int64) * column_stride)[:, None]
        z = tl.load(at, mask=counts[None, :] & (k < NUM_CLASSES)[:, None], other=-float("inf")).to(REAL)
        is_label = (k[:, None] == y[None, :]) & counts[None, :]
        # a row that does not count is 0 at its label and -inf elsewhere: finite, and no p among the others
        z_y = tl.sum(tl.where(is_label, z, 0.0), 0)
        others = tl.where(is_label, -float("inf"), z)
        p, loss, margin, confidence, prediction = read_rows(others, z_y, k[:, None], y, CLASSES, 0)
        loss_sum += tl.where(is_label, loss[None, :], 0.0)
        margin_sum += tl.where(is_label, margin[None, :], 0.0)
        confidence_sum += tl.where(is_label, confidence[None, :], 0.0)
        negative += p
        counters += tl.where(is_label, tl.where(prediction == y, 1 + (1 << 10), 1)[None, :], 0)
        counters += tl.where((k[:, None] == prediction[None, :]) & counts[None, :], 1 << 20, 0)
    part = tl.program_id(0).to(tl.int64)
    count = counters & 1023
    _add(sums, part, k, count, NUM_CLASSES, DETERMINISTIC)
    _add(sums + NUM_CLASSES, part, k, loss_sum, NUM_CLASSES, DETERMINISTIC)
    _add(sums + 2 * NUM_CLASSES, part, k, (counters >> 10) & 1023, NUM_CLASSES, DETERMINISTIC)
    _add(sums + 3 * NUM_CLASSES, part, k, margin_sum, NUM_CLASSES, DETERMINISTIC)
    _add(sums + 4 * NUM_CLASSES, part, k, confidence_sum, NUM_CLASSES, DETERMINISTIC)
    _add(sums + 5 * NUM_CLASSES, part, k, counters >> 20, NUM_CLASSES, DETERMINISTIC)
    positive = count.to(tl.float64) - confidence_sum.to(tl.float64)
    _add(sums + 6 * NUM_CLASSES, part, k, positive, NUM_CLASSES, DETERMINISTIC)
    _add(sums + 7 * NUM_CLASSES, part, k, negative, NUM_CLASSES, DETERMINISTIC)
