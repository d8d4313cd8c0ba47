"""Moments of rows that are ordered by class (triton_order.py): chunks and whole classes, then the chunks of a class."""

# What Triton compiles has no types of Python.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _reciprocal(n):
    """Return 1 / n in float64 for a number of rows, by Newton's steps from float32: a division would be a call."""
    close = tl.div_rn(1.0, n.to(tl.float32)).to(tl.float64)
    n = n.to(tl.float64)
    close = close * (2 - n * close)
    return close * (2 - n * close)


@triton.jit
def _int64(number):
    """Return an argument as int64: one that is 1 is a number of Python's to Triton, which has no `to`."""
    return tl.full([], 0, tl.int64) + number


@triton.jit
def _divided(total, rows):
    """Return total / rows, correctly rounded: float32's `/` is two units off on a GPU (div.full)."""
    if total.dtype == tl.float64:
        return total / rows
    else:
        return tl.div_rn(total, rows)


@triton.jit
def _store(mean_at, m2_at, mask, new_mean, new_m2, rows, before, FRESH: tl.constexpr):
    """Store float64 moments of `rows` rows, merged with those of `before` rows (Chan, Golub and LeVeque, 1979)."""
    if not FRESH:
        if before > 0:
            mean = tl.load(mean_at, mask=mask, other=0).to(tl.float64)
            m2 = tl.load(m2_at, mask=mask, other=0).to(tl.float64)
            n_before = before.to(tl.float64)
            weight = rows.to(tl.float64) * _reciprocal(before + rows)
            delta = new_mean - mean
            new_m2 += m2 + delta * delta * (n_before * weight)
            # an infinite mean stays: inf - inf is none
            merged = tl.where(delta - delta == 0, mean + delta * weight, mean * (1 - weight) + new_mean * weight)
            new_mean = merged
    tl.store(mean_at, new_mean.to(mean_at.dtype.element_ty), mask=mask)
    tl.store(m2_at, new_m2.to(m2_at.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["chunk_lines", "chunk_rows", "panels"])
def moments_of_lines(
    features, row_stride, column_stride, columns, order, table, chunk_lines, chunk_rows, panels, mean, m2, partial,
    R: tl.constexpr, W: tl.constexpr, BY_CLASS: tl.constexpr, FRESH: tl.constexpr,
):  # fmt: skip
    """Moments of one line of the table, W columns wide: of a class into mean and m2, of a chunk into `partial`.

    With the mean of the first R rows as shift: d = x - shift, mean = shift + sum d / n, m2 = sum d^2 - (sum d)^2 / n.
    A lane sums every R-th row. partial[line] = (shift, sum d / n, m2), each [D], so that no digit of the mean is lost.
    What is not finite comes out as the definition has it, in two passes of float64.
    """
    line = tl.program_id(0) // panels
    j = tl.program_id(0) % panels * W + tl.arange(0, W)
    inside = j < columns
    at = table + line.to(tl.int64) * 4
    c = tl.load(at)
    begin = tl.load(at + 1).to(tl.int32)
    rows = tl.load(at + 2).to(tl.int32)
    before = tl.load(at + 3)
    of_chunk = line < chunk_lines
    if of_chunk:
        # the line's window is k windows behind that of the class
        done = tl.where(line % 2 == 1, 0, (line // 2 - begin // chunk_rows) * chunk_rows)
        begin += done
        rows = tl.minimum(rows - done, chunk_rows)
    here = (rows > 0) & (of_chunk | (rows <= chunk_rows))
    A = mean.dtype.element_ty
    if here:
        column = features + j.to(tl.int64)[None, :] * column_stride
        lane = tl.arange(0, R)
        row = tl.load(order + begin + lane, mask=lane < rows, other=0).to(tl.int64)
        x = tl.load(column + row[:, None] * row_stride, mask=(lane < rows)[:, None] & inside[None, :], other=0)
        # One tile ahead with the elements and two with their rows: while one is summed the next is on its way.
        row = tl.load(order + begin + R + lane, mask=R + lane < rows, other=0).to(tl.int64)
        shift = tl.sum(x.to(A), 0) / tl.minimum(rows, R).to(A)
        s = tl.zeros([R, W], A)
        q = tl.zeros([R, W], A)
        for i in range(0, rows, R):
            ahead = (i + R + lane < rows)[:, None] & inside[None, :]
            next_x = tl.load(column + row[:, None] * row_stride, mask=ahead, other=0)
            row = tl.load(order + begin + i + 2 * R + lane, mask=i + 2 * R + lane < rows, other=0).to(tl.int64)
            d = tl.where((i + lane < rows)[:, None], x.to(A) - shift[None, :], 0)
            s += d
            q += d * d
            x = next_x
        total = tl.sum(s, 0)
        # equal rows are all a few units from `shift`: their squares cancel if this is what they are from it
        offset = _divided(total, rows.to(A))
        squares = tl.sum(q, 0) - total * offset
        # not tl.maximum: NaN stays
        squares = tl.where(squares < 0, 0, squares)
        new_mean = shift.to(tl.float64) + offset.to(tl.float64)
        new_m2 = squares.to(tl.float64)
        if tl.sum((squares - squares != 0).to(tl.int32), 0) > 0:
            wide = tl.zeros([R, W], tl.float64)
            for i in range(0, rows, R):
                there = i + lane < rows
                row = tl.load(order + begin + i + lane, mask=there, other=0).to(tl.int64)
                value = tl.load(column + row[:, None] * row_stride, mask=there[:, None] & inside[None, :], other=0)
                wide += value.to(tl.float64)
            new_mean = tl.sum(wide, 0) * _reciprocal(rows)
            wide = tl.zeros([R, W], tl.float64)
            for i in range(0, rows, R):
                there = i + lane < rows
                row = tl.load(order + begin + i + lane, mask=there, other=0).to(tl.int64)
                value = tl.load(column + row[:, None] * row_stride, mask=there[:, None] & inside[None, :], other=0)
                apart = tl.where(there[:, None], value.to(tl.float64) - new_mean[None, :], 0)
                wide += apart * apart
            new_m2 = tl.sum(wide, 0)
            shift = new_mean.to(A)
            offset = (new_mean - shift.to(tl.float64)).to(A)
            offset = tl.where(offset - offset == 0, offset, 0)
        if of_chunk:
            to_partial = partial + line.to(tl.int64) * 3 * columns + j
            tl.store(to_partial, shift, mask=inside)
            tl.store(to_partial + columns, offset, mask=inside)
            tl.store(to_partial + 2 * _int64(columns), new_m2.to(A), mask=inside)
        else:
            to = c * columns + j
            _store(mean + to, m2 + to, inside, new_mean, new_m2, rows, before, FRESH)
    else:
        if FRESH and BY_CLASS:
            if (rows == 0) & (line >= chunk_lines):
                to = (line - chunk_lines).to(tl.int64) * columns + j
                tl.store(mean + to, tl.zeros([W], A), mask=inside)
                tl.store(m2 + to, tl.zeros([W], A), mask=inside)


@triton.jit(do_not_specialize=["chunk_lines", "chunk_rows", "panels"])
def merge_chunks(
    columns, table, chunk_lines, chunk_rows, panels, mean, m2, partial,
    K: tl.constexpr, W: tl.constexpr, BY_CLASS: tl.constexpr, FRESH: tl.constexpr,
):  # fmt: skip
    """Merge the chunks of the class that begins in one window, K side by side, W columns wide.

    In float64 with the first chunk's mean as origin: d_k = mean_k - mean_0, mean = mean_0 + sum n_k d_k / n and
    m2 = sum m2_k + sum n_k d_k^2 - (sum n_k d_k)^2 / n. Where d_k is not finite the mean is sum n_k mean_k / n.
    """
    window = tl.program_id(0) // panels
    j = tl.program_id(0) % panels * W + tl.arange(0, W)
    inside = j < columns
    at = table + (2 * window + 1).to(tl.int64) * 4
    c = tl.load(at)
    start = tl.load(at + 1)
    rows = tl.load(at + 2).to(tl.int32)
    if rows > 0:
        line = (chunk_lines + (c if BY_CLASS else start)).to(tl.int64)
        before = tl.load(table + line * 4 + 3)
        stride = 3 * _int64(columns)
        first = partial + (2 * window + 1) * stride + j
        origin = tl.load(first, mask=inside, other=0).to(tl.float64)
        origin += tl.load(first + columns, mask=inside, other=0).to(tl.float64)
        s = tl.zeros([K, W], tl.float64)
        q = tl.zeros([K, W], tl.float64)
        n_d_d = tl.zeros([K, W], tl.float64)
        t = tl.zeros([K, W], tl.float64)
        chunks = tl.cdiv(rows, chunk_rows)
        for first_chunk in range(0, chunks, K):
            k = first_chunk + tl.arange(0, K)
            mask = (k < chunks)[:, None] & inside[None, :]
            at_k = partial + (2 * (window + k) + (k == 0).to(tl.int32)).to(tl.int64)[:, None] * stride + j[None, :]
            chunk_mean = tl.load(at_k, mask=mask, other=0).to(tl.float64)
            chunk_mean += tl.load(at_k + columns, mask=mask, other=0).to(tl.float64)
            n = tl.maximum(tl.minimum(rows - k * chunk_rows, chunk_rows), 0).to(tl.float64)[:, None]
            d = tl.where(mask, chunk_mean - origin[None, :], 0)
            s += n * d
            n_d_d += n * d * d
            q += tl.load(at_k + 2 * _int64(columns), mask=mask, other=0).to(tl.float64)
            t += n * chunk_mean
        total = tl.sum(s, 0)
        share = _reciprocal(rows)
        new_mean = tl.where(total - total == 0, origin + total * share, tl.sum(t, 0) * share)
        between = tl.sum(n_d_d, 0) - total * (total * share)
        # not tl.maximum: NaN stays
        new_m2 = tl.sum(q, 0) + tl.where(between < 0, 0, between)
        to = c * columns + j
        _store(mean + to, m2 + to, inside, new_mean, new_m2, rows, before, FRESH)
