"""Triton kernels of class_logits that add what programs have stored, in one order, where one is asked for."""

# What Triton compiles has no types of Python.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from imbdyn.ops.class_logits.triton_kernels import counted_labels, rows_of


@triton.jit(do_not_specialize=["num_rows", "ignore_index", "num_parts"])
def sum_by_label(
    labels, rows, parts, num_rows, num_parts, label_stride, ignore_index,
    NUM_CLASSES: tl.constexpr, CLASSES: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Sum the rows that `add_rows` has left, in their order, to `parts` [num_parts, 7, C]."""
    part = tl.program_id(1)
    k = tl.program_id(0) * CLASSES + tl.arange(0, CLASSES)
    tiles = tl.cdiv(num_rows, ROWS)
    count = tl.zeros([CLASSES], tl.float64)
    loss = tl.zeros([CLASSES], tl.float64)
    correct = tl.zeros([CLASSES], tl.float64)
    margin = tl.zeros([CLASSES], tl.float64)
    confidence = tl.zeros([CLASSES], tl.float64)
    predicted = tl.zeros([CLASSES], tl.float64)
    positive = tl.zeros([CLASSES], tl.float64)
    for tile in range(part, tiles, num_parts):
        n = rows_of(tile, ROWS)
        counts, y = counted_labels(labels, n, num_rows, label_stride, ignore_index, NUM_CLASSES)
        of_loss = tl.load(rows + n, mask=counts, other=0.0)
        of_margin = tl.load(rows + num_rows + n, mask=counts, other=0.0)
        of_confidence = tl.load(rows + 2 * num_rows + n, mask=counts, other=0.0)
        prediction = tl.load(rows + 3 * num_rows + n, mask=counts, other=-1.0).to(tl.int32)
        of_class = counts[:, None] & (y[:, None] == k[None, :])
        predicts = prediction[:, None] == k[None, :]
        count += tl.sum(tl.where(of_class, 1.0, 0.0).to(tl.float64), 0)
        loss += tl.sum(tl.where(of_class, of_loss[:, None], 0.0), 0)
        correct += tl.sum(tl.where(of_class & predicts, 1.0, 0.0).to(tl.float64), 0)
        margin += tl.sum(tl.where(of_class, of_margin[:, None], 0.0), 0)
        confidence += tl.sum(tl.where(of_class, of_confidence[:, None], 0.0), 0)
        predicted += tl.sum(tl.where(predicts, 1.0, 0.0).to(tl.float64), 0)
        positive += tl.sum(tl.where(of_class, 1 - of_confidence[:, None], 0.0), 0)
    to = parts + part.to(tl.int64) * 7 * NUM_CLASSES + k
    exists = k < NUM_CLASSES
    tl.store(to, count, mask=exists)
    tl.store(to + NUM_CLASSES, loss, mask=exists)
    tl.store(to + 2 * NUM_CLASSES, correct, mask=exists)
    tl.store(to + 3 * NUM_CLASSES, margin, mask=exists)
    tl.store(to + 4 * NUM_CLASSES, confidence, mask=exists)
    tl.store(to + 5 * NUM_CLASSES, predicted, mask=exists)
    tl.store(to + 6 * NUM_CLASSES, positive, mask=exists)


@triton.jit(do_not_specialize=["num_parts"])
def sum_parts(
    sums, parts, num_parts, FIRST: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr, BLOCK: tl.constexpr
):
    """Add `parts` [num_parts, WIDTH] to `sums` [WIDTH], which begin at its element FIRST, always in one order."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    exists = i < WIDTH
    part = tl.arange(0, PARTS)
    at = parts + part.to(tl.int64)[:, None] * WIDTH + i[None, :]
    total = tl.zeros([PARTS, BLOCK], tl.float64)
    for first in range(0, num_parts, PARTS):
        total += tl.load(at, mask=(first + part < num_parts)[:, None] & exists[None, :], other=0.0).to(tl.float64)
        at += PARTS * WIDTH
    to = sums + FIRST + i
    tl.store(to, tl.load(to, mask=exists, other=0.0) + tl.sum(total, 0), mask=exists)
