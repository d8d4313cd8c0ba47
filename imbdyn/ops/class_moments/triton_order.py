"""Ordering rows by class on a GPU without waiting for it: three ways to one result.

`order` holds row numbers by class, and by row within a class; rows that count nowhere are not in it. `table` has lines
of four int64: class, its first place in `order`, its rows, and how many rows it had before this call.

- Lines 0 .. 2 W - 1, W = ceil(N / B), are chunks of B rows of the classes of more than B rows (class, start, rows).
  The first chunk of a class that starts at place s is in line 2 (s // B) + 1, and its chunk k in line
  2 ((s + k B) // B). No two meet: in one window of B places at most one such class goes on and at most one begins.
  So nothing is claimed or counted: each row knows from its own place whether a chunk begins with it, and where it goes.
- The lines behind are classes: line 2 W + c for class c (`BY_CLASS`; used if C <= N), or 2 W + its first place.

Unused lines have 0 rows. `count` int64 [C] is updated, because this kernel is the last that may read it. Numbers that
change from call to call are not specialised: no kernel is compiled again where one is 1 or a multiple of 16.
"""

# What Triton compiles has no types of Python.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _classes(labels, label_stride, i, inside, num_classes, ignore_index):
    """Return the classes of rows i, `num_classes` for a row that counts nowhere, one more for no row."""
    label = tl.load(labels + i.to(tl.int64) * label_stride, mask=inside, other=0)
    counts = (label >= 0) & (label < num_classes) & (label != ignore_index)
    return tl.where(inside, tl.where(counts, label, num_classes), num_classes + 1).to(tl.int32)


@triton.jit
def _write_classes(table, line, mask, c, start, rows, count, FRESH: tl.constexpr):
    """Write the lines of classes, and add their rows to `count`; `FRESH`: nothing was in it."""
    before = tl.zeros_like(c).to(tl.int64) if FRESH else tl.load(count + c, mask=mask, other=0)
    tl.store(count + c, before + rows, mask=mask)
    at = table + line.to(tl.int64) * 4
    tl.store(at, c.to(tl.int64), mask=mask)
    tl.store(at + 1, start.to(tl.int64), mask=mask)
    tl.store(at + 2, rows.to(tl.int64), mask=mask)
    tl.store(at + 3, before, mask=mask)


@triton.jit
def _write_chunks(table, mask, c, start, rows, place, chunk_rows):
    """Write the lines of those chunks that begin at `place`."""
    begins = mask & (rows > chunk_rows) & ((place - start) % chunk_rows == 0)
    line = 2 * (place // chunk_rows) + (place == start).to(tl.int32)
    at = table + line.to(tl.int64) * 4
    tl.store(at, c.to(tl.int64), mask=begins)
    tl.store(at + 1, start.to(tl.int64), mask=begins)
    tl.store(at + 2, rows.to(tl.int64), mask=begins)


@triton.jit(do_not_specialize=["num_rows", "num_classes", "ignore_index", "row_blocks", "chunk_lines", "chunk_rows"])
def order_by_pairs(
    labels, label_stride, num_rows, num_classes, ignore_index, order, table, count, row_blocks, chunk_lines, chunk_rows,
    CHUNKED: tl.constexpr, BY_CLASS: tl.constexpr, FRESH: tl.constexpr, OWN: tl.constexpr, OTHER: tl.constexpr,
):  # fmt: skip
    """place[i] = #{j: (y_j, j) < (y_i, i)}, by comparing all pairs: one launch, for up to 2^15 rows.

    Programs from `row_blocks` on make the lines of OWN classes each (`BY_CLASS`).
    """
    block = tl.program_id(0)
    of_rows = block < row_blocks
    i = tl.where(of_rows, block, block - row_blocks) * OWN + tl.arange(0, OWN)
    if of_rows:
        own = _classes(labels, label_stride, i, i < num_rows, num_classes, ignore_index)
    else:
        own = i
    # two counts of at most 2^15 in one register: rows in front, and rows of lower classes
    places = tl.zeros([OWN, OTHER], tl.int32)
    equal = tl.zeros([OWN, OTHER], tl.int32)
    for first in range(0, num_rows, OTHER):
        j = first + tl.arange(0, OTHER)
        other = _classes(labels, label_stride, j, j < num_rows, num_classes, ignore_index)
        same = other[None, :] == own[:, None]
        lower = (other[None, :] < own[:, None]).to(tl.int32)
        places += (lower << 16) + lower + (same & (j[None, :] < i[:, None])).to(tl.int32)
        equal += same.to(tl.int32)
    packed = tl.sum(places, 1)
    rows = tl.sum(equal, 1)
    start = packed >> 16
    if of_rows:
        place = packed & 0xFFFF
        counts = own < num_classes
        tl.store(order + place, i, mask=counts)
        if CHUNKED:
            _write_chunks(table, counts, own, start, rows, place, chunk_rows)
        if not BY_CLASS:
            _write_classes(table, chunk_lines + place, counts & (place == start), own, start, rows, count, FRESH)
    else:
        _write_classes(table, chunk_lines + own, own < num_classes, own, start, rows, count, FRESH)


@triton.jit(do_not_specialize=["num_rows", "num_classes", "ignore_index"])
def count_labels(
    labels, label_stride, num_rows, num_classes, ignore_index, histogram, totals, BINS: tl.constexpr, L: tl.constexpr
):
    """histogram[b, c] = rows of class c in block b of L rows; totals[c] += that. First of three launches."""
    block = tl.program_id(0)
    i = block * L + tl.arange(0, L)
    own = _classes(labels, label_stride, i, i < num_rows, num_classes, ignore_index)
    c = tl.arange(0, BINS)
    rows = tl.histogram(tl.minimum(own, num_classes), BINS)
    tl.store(histogram + block.to(tl.int64) * num_classes + c, rows, mask=c < num_classes)
    # whole numbers: the order of the additions does not matter
    tl.atomic_add(totals + c, rows, mask=(c < num_classes) & (rows > 0), sem="relaxed")


@triton.jit(do_not_specialize=["num_classes", "blocks", "chunk_lines"])
def start_classes(
    histogram, blocks, num_classes, totals, table, chunk_lines, count,
    FRESH: tl.constexpr, BINS: tl.constexpr, L: tl.constexpr,
):  # fmt: skip
    """Make of histogram[b, c] the first place of block b's rows of class c, and the line of class c."""
    own = tl.program_id(0)
    c = tl.arange(0, BINS)
    total = tl.load(totals + c, mask=c < num_classes, other=0)
    start = tl.sum(tl.where(c < own, total, 0), 0)
    rows = tl.sum(tl.where(c == own, total, 0), 0)
    place = start
    for first in range(0, blocks, L):
        b = first + tl.arange(0, L)
        at = histogram + b.to(tl.int64) * num_classes + own
        here = tl.load(at, mask=b < blocks, other=0)
        tl.store(at, place + tl.cumsum(here, 0) - here, mask=b < blocks)
        place += tl.sum(here, 0)
    one = tl.arange(0, 1)
    _write_classes(table, chunk_lines + own + one, one == 0, own + one, start + one, rows + one, count, FRESH)


@triton.jit(do_not_specialize=["num_rows", "num_classes", "ignore_index", "chunk_lines", "chunk_rows"])
def place_rows(
    labels, label_stride, num_rows, num_classes, ignore_index, histogram, order, table, chunk_lines, chunk_rows,
    L: tl.constexpr, J: tl.constexpr,
):  # fmt: skip
    """Put the rows of a block of L at their places: where the block's rows of the class begin, and pairs within it."""
    block = tl.program_id(0)
    i = block * L + tl.arange(0, L)
    own = _classes(labels, label_stride, i, i < num_rows, num_classes, ignore_index)
    counts = own < num_classes
    earlier = tl.zeros([L, J], tl.int32)
    for first in range(0, L, J):
        j = block * L + first + tl.arange(0, J)
        other = _classes(labels, label_stride, j, j < num_rows, num_classes, ignore_index)
        earlier += ((other[None, :] == own[:, None]) & (j[None, :] < i[:, None])).to(tl.int32)
    place = tl.load(histogram + block.to(tl.int64) * num_classes + own, mask=counts, other=0) + tl.sum(earlier, 1)
    tl.store(order + place, i, mask=counts)
    line = table + (chunk_lines + own).to(tl.int64) * 4
    start = tl.load(line + 1, mask=counts, other=0).to(tl.int32)
    rows = tl.load(line + 2, mask=counts, other=0).to(tl.int32)
    _write_chunks(table, counts, own, start, rows, place, chunk_rows)


@triton.jit(do_not_specialize=["num_rows", "num_classes", "ignore_index"])
def make_keys(labels, label_stride, num_rows, num_classes, ignore_index, keys, L: tl.constexpr):
    """keys[i] = the class of row i, `num_classes` for a row that counts nowhere."""
    i = tl.program_id(0) * L + tl.arange(0, L)
    own = _classes(labels, label_stride, i, i < num_rows, num_classes, ignore_index)
    tl.store(keys + i, own.to(keys.dtype.element_ty), mask=i < num_rows)


@triton.jit
def _first_not_below(keys, num_rows, steps, wanted):
    """Return where sorted `keys` reach `wanted`, by halving: `steps` with 2^steps > N."""
    low = tl.zeros_like(wanted)
    high = low + num_rows
    for _ in range(steps):
        middle = (low + high) // 2
        below = tl.load(keys + middle, mask=low < high, other=0).to(tl.int32) < wanted
        high = tl.where(below, high, middle)
        low = tl.where(below & (low < high), middle + 1, low)
    return low


@triton.jit(do_not_specialize=["num_rows", "num_classes", "steps", "chunk_lines", "chunk_rows"])
def list_sorted(
    keys, num_rows, num_classes, steps, table, chunk_lines, chunk_rows, count,
    BY_CLASS: tl.constexpr, FRESH: tl.constexpr, L: tl.constexpr,
):  # fmt: skip
    """Write the lines of sorted keys; a row looks for the ends of its class."""
    place = tl.program_id(0) * L + tl.arange(0, L)
    own = tl.load(keys + place, mask=place < num_rows, other=num_classes).to(tl.int32)
    start = _first_not_below(keys, num_rows, steps, own)
    rows = _first_not_below(keys, num_rows, steps, own + 1) - start
    counts = own < num_classes
    _write_chunks(table, counts, own, start, rows, place, chunk_rows)
    line = chunk_lines + (own if BY_CLASS else place)
    _write_classes(table, line, counts & (place == start), own, start, rows, count, FRESH)
