"""Kernels of the gram way: products of pairs of rows in class order, summed over class blocks as they are made.

Place p is row p % L of sample p // L in class order (order.py). K = (A A^T) * (D D^T) is made by tiles of BLOCK x BLOCK
places and never stored; for a bias K = D D^T. Float32 products and sums within a tile, float64 across tiles.
"""

# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: RUF059 - a name for what is not used, because `_` would be one variable of one type

from __future__ import annotations

import triton
import triton.language as tl

from imbdyn.ops.class_gram.triton_dot import dot


@triton.jit
def _products(
    matrix, at_i, at_j, ok_i, ok_j, columns, BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
    ALIGNED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return the inner products [BLOCK, BLOCK] of the rows at offsets at_i and at_j."""
    at_i, at_j = tl.multiple_of(at_i, ALIGNED), tl.multiple_of(at_j, ALIGNED)
    products = tl.zeros([BLOCK, BLOCK], tl.float32)
    for first in range(0, columns, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        ok = tl.max_constancy(column < columns, ALIGNED)
        rows_i = tl.load(matrix + at_i[:, None] + column[None, :], mask=ok_i[:, None] & ok[None, :], other=0)
        rows_j = tl.load(matrix + at_j[:, None] + column[None, :], mask=ok_j[:, None] & ok[None, :], other=0)
        products = dot(rows_i, tl.trans(rows_j), products, PRECISION)
    return products


@triton.jit
def _input_products(
    inputs, at_i, at_j, ok_i, ok_j, columns, SINGLE: tl.constexpr, BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr, ALIGNED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return `_products`; of a single column, that of a bias, as the outer product it is."""
    if SINGLE:
        of_i = tl.load(inputs + at_i, mask=ok_i, other=0).to(tl.float32)
        of_j = tl.load(inputs + at_j, mask=ok_j, other=0).to(tl.float32)
        return of_i[:, None] * of_j[None, :]
    else:
        return _products(
            inputs, at_i, at_j, ok_i, ok_j, columns, BLOCK, COLUMNS, ALIGNED, PRECISION
        )  # fmt: skip


@triton.jit
def _add_by_class(
    gram, num_classes, products, rank_i, rank_j, label_of_rank, ok_i, ok_j, mirrored, BLOCK: tl.constexpr,
    EXACT: tl.constexpr,
):  # fmt: skip
    """Add a tile's class blocks to gram [C, C], and if `mirrored` to its other triangle as well."""
    first_i, last_i = tl.min(tl.where(ok_i, rank_i, 2147483647)), tl.max(tl.where(ok_i, rank_i, -1))
    first_j, last_j = tl.min(tl.where(ok_j, rank_j, 2147483647)), tl.max(tl.where(ok_j, rank_j, -1))
    number = tl.arange(0, BLOCK)
    there_i, there_j = first_i + number <= last_i, first_j + number <= last_j
    label_i = tl.load(label_of_rank + first_i + number, mask=there_i, other=0).to(tl.int64)[:, None]
    label_j = tl.load(label_of_rank + first_j + number, mask=there_j, other=0).to(tl.int64)[None, :]
    # sums by class as products with ones and zeros; 0 times NaN is NaN, so what is not finite goes its own way
    finite = tl.abs(products) < float("inf")
    of_i = (number[:, None] == (rank_i - first_i)[None, :]) & ok_i[None, :]
    of_j = (number[None, :] == (rank_j - first_j)[:, None]) & ok_j[:, None]
    zeros = tl.zeros([BLOCK, BLOCK], tl.float32)
    sums = dot(of_i.to(tl.float32), tl.where(finite, products, 0.0), zeros, EXACT)
    blocks = dot(sums, of_j.to(tl.float32), zeros, EXACT).to(tl.float64)
    there = there_i[:, None] & there_j[None, :]
    tl.atomic_add(gram + label_i * num_classes + label_j, blocks, mask=there, sem="relaxed")
    if mirrored:
        tl.atomic_add(gram + label_j * num_classes + label_i, blocks, mask=there, sem="relaxed")
    if tl.max(tl.where(finite, 0, 1)) > 0:
        label_of_i = tl.load(label_of_rank + rank_i, mask=ok_i, other=0).to(tl.int64)
        for j in range(first_j, last_j + 1):
            label = tl.load(label_of_rank + j).to(tl.int64)
            rest = tl.sum(tl.where((rank_j == j)[None, :] & (finite == 0), products, 0.0), 1).to(tl.float64)
            wrong = ok_i & (rest != 0.0)
            tl.atomic_add(gram + label_of_i * num_classes + label, rest, mask=wrong, sem="relaxed")
            if mirrored:
                tl.atomic_add(gram + label * num_classes + label_of_i, rest, mask=wrong, sem="relaxed")


@triton.jit
def _add_norms(norms, products, same, label_i, ok_i, mirrored):
    """Add the products within samples to sample_norm_sq [C]."""
    within = tl.sum(tl.where(same, products, 0.0), 1).to(tl.float64)
    within = tl.where(mirrored, 2 * within, within)
    tl.atomic_add(norms + label_i, within, mask=ok_i & (within != 0.0), sem="relaxed")


@triton.jit
def _place(block, samples, labels, rank, unit, length, limit, BLOCK: tl.constexpr, UNITS: tl.constexpr):
    """Return of each place of a block: sample, row in it, whether it counts, rank, label and number of its sample."""
    place = block * BLOCK + tl.arange(0, BLOCK)
    ok = place < limit
    at = place // length
    sample = tl.load(samples + at, mask=ok, other=0).to(tl.int64)
    label = tl.load(labels + at, mask=ok, other=0).to(tl.int64)
    number = tl.load(unit + at, mask=ok, other=0) if UNITS else at
    return sample, (place - at * length).to(tl.int64), ok, tl.load(rank + at, mask=ok, other=0), label, number


@triton.jit
def pairs_kernel(
    inputs, grads, samples, labels, rank, label_of_rank, unit, counted, gram, norms, bias_gram, bias_norms,
    num_classes, length, columns, input_sample, input_row, outputs, grad_sample, grad_row,
    WEIGHT: tl.constexpr, BIAS: tl.constexpr, NORMS: tl.constexpr, UNITS: tl.constexpr, SINGLE: tl.constexpr,
    BLOCK: tl.constexpr, COLUMNS: tl.constexpr, INPUTS_ALIGNED: tl.constexpr, GRADS_ALIGNED: tl.constexpr,
    PRECISION: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Add the tile of one pair of blocks to gram and norms, which are 0: grid (blocks, blocks), of which i <= j work.

    inputs [S, L, columns], grads [S, L, outputs] by strides, that of columns 1; `counted` points to how many count.
    """
    i, j = tl.program_id(1), tl.program_id(0)
    limit = tl.load(counted).to(tl.int32) * length
    if (i > j) | (j * BLOCK >= limit):
        return
    sample_i, row_i, ok_i, rank_i, label_i, number_i = _place(
        i, samples, labels, rank, unit, length, limit, BLOCK, UNITS
    )
    sample_j, row_j, ok_j, rank_j, label_j, number_j = _place(
        j, samples, labels, rank, unit, length, limit, BLOCK, UNITS
    )
    products = _products(
        grads, sample_i * grad_sample + row_i * grad_row, sample_j * grad_sample + row_j * grad_row, ok_i, ok_j,
        outputs, BLOCK, COLUMNS, GRADS_ALIGNED, PRECISION,
    )  # fmt: skip
    near = tl.max(tl.where(ok_i, number_i, -1)) >= tl.min(tl.where(ok_j, number_j, 2147483647))
    same = (number_i[:, None] == number_j[None, :]) & ok_i[:, None] & ok_j[None, :]
    if BIAS:
        _add_by_class(
            bias_gram, num_classes, products, rank_i, rank_j, label_of_rank, ok_i, ok_j, i < j, BLOCK, EXACT,
        )  # fmt: skip
        if NORMS:
            if near:
                _add_norms(bias_norms, products, same, label_i, ok_i, i < j)
    if WEIGHT:
        products *= _input_products(
            inputs, sample_i * input_sample + row_i * input_row, sample_j * input_sample + row_j * input_row,
            ok_i, ok_j, columns, SINGLE, BLOCK, COLUMNS, INPUTS_ALIGNED, PRECISION,
        )  # fmt: skip
        _add_by_class(
            gram, num_classes, products, rank_i, rank_j, label_of_rank, ok_i, ok_j, i < j, BLOCK, EXACT,
        )  # fmt: skip
        if NORMS:
            if near:
                _add_norms(norms, products, same, label_i, ok_i, i < j)


@triton.jit
def within_kernel(
    inputs, grads, samples, labels, rank, unit, counted, norms, bias_norms,
    length, columns, input_sample, input_row, outputs, grad_sample, grad_row,
    WEIGHT: tl.constexpr, BIAS: tl.constexpr, UNITS: tl.constexpr, SINGLE: tl.constexpr,
    BLOCK: tl.constexpr, COLUMNS: tl.constexpr, INPUTS_ALIGNED: tl.constexpr, GRADS_ALIGNED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Add the squared norms of samples alone, from the pairs of rows within each: grid (blocks), arguments as above."""
    i = tl.program_id(0)
    limit = tl.load(counted).to(tl.int32) * length
    if i * BLOCK >= limit:
        return
    sample_i, row_i, ok_i, rank_i, label_i, number_i = _place(
        i, samples, labels, rank, unit, length, limit, BLOCK, UNITS
    )
    last = tl.max(tl.where(ok_i, number_i, -1))
    j = i
    reaches = i * BLOCK < limit
    while reaches:
        sample_j, row_j, ok_j, rank_j, label_j, number_j = _place(
            j, samples, labels, rank, unit, length, limit, BLOCK, UNITS
        )
        same = (number_i[:, None] == number_j[None, :]) & ok_i[:, None] & ok_j[None, :]
        products = _products(
            grads, sample_i * grad_sample + row_i * grad_row, sample_j * grad_sample + row_j * grad_row, ok_i, ok_j,
            outputs, BLOCK, COLUMNS, GRADS_ALIGNED, PRECISION,
        )  # fmt: skip
        if BIAS:
            _add_norms(bias_norms, products, same, label_i, ok_i, i < j)
        if WEIGHT:
            products *= _input_products(
                inputs, sample_i * input_sample + row_i * input_row, sample_j * input_sample + row_j * input_row,
                ok_i, ok_j, columns, SINGLE, BLOCK, COLUMNS, INPUTS_ALIGNED, PRECISION,
            )  # fmt: skip
            _add_norms(norms, products, same, label_i, ok_i, i < j)
        j += 1
        # whether the first place of the next block is of the last sample of block i
        at = j * BLOCK // length
        more = j * BLOCK < limit
        number = tl.load(unit + at, mask=more, other=-1) if UNITS else at
        reaches = more & (number <= last)
