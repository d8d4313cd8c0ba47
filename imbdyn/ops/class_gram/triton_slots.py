"""Kernels around the gradients of chunks: their inner products, and norms of samples that are single rows."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from imbdyn.ops.class_gram.triton_dot import dot


@triton.jit
def slots_kernel(
    slots, slot_label, slots_used, gram, num_classes, size, part,
    ONE: tl.constexpr, LANES: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add inner products of slots [slots, size] to gram [C, C]: grid (parts of `part` numbers, slot blocks i, j).

    Each of LANES warps multiplies numbers of its own. ONE: there is one block of slots only.
    """
    i, j = tl.program_id(1), tl.program_id(2)
    used = tl.load(slots_used)
    if (i > j) | (j * BLOCK_S >= used):
        return
    slot_i, slot_j = i * BLOCK_S + tl.arange(0, BLOCK_S), j * BLOCK_S + tl.arange(0, BLOCK_S)
    ok_i, ok_j = slot_i < used, slot_j < used
    label_i = tl.load(slot_label + slot_i, mask=ok_i, other=0).to(tl.int64)
    label_j = tl.load(slot_label + slot_j, mask=ok_j, other=0).to(tl.int64)
    # what was written last is read first: it may still be in the cache
    first = (tl.num_programs(0) - 1 - tl.program_id(0)).to(tl.int64) * part
    end = tl.minimum(first + part, size)
    products = tl.zeros([LANES, BLOCK_S, BLOCK_S], tl.float32)
    from_i = (slots + slot_i.to(tl.int64) * size)[None, :, None]
    from_j = (slots + slot_j.to(tl.int64) * size)[None, :, None]
    lane = tl.arange(0, LANES)[:, None, None] * BLOCK + tl.arange(0, BLOCK)[None, None, :]
    for begin in range(first, end, LANES * BLOCK):
        at = begin + lane
        g_i = tl.load(from_i + at, mask=ok_i[None, :, None] & (at < end), other=0)
        if ONE:
            g_j = g_i
        else:
            g_j = tl.load(from_j + at, mask=ok_j[None, :, None] & (at < end), other=0)
        products = dot(g_i, tl.permute(g_j, (0, 2, 1)), products, PRECISION)
    total = tl.sum(products, 0).to(tl.float64)
    ok = ok_i[:, None] & ok_j[None, :]
    tl.atomic_add(gram + label_i[:, None] * num_classes + label_j[None, :], total, mask=ok, sem="relaxed")
    if i < j:
        tl.atomic_add(gram + label_j[None, :] * num_classes + label_i[:, None], total, mask=ok, sem="relaxed")


@triton.jit
def row_norms_kernel(
    inputs, grads, input_rows, grad_rows, labels, counted, norms, columns, input_row, outputs, grad_row,
    BLOCK_R: tl.constexpr, BLOCK: tl.constexpr, INPUTS_ALIGNED: tl.constexpr, GRADS_ALIGNED: tl.constexpr,
):  # fmt: skip
    """Add ||inputs_r||^2 ||grads_r||^2 to norms [C], where rows are samples: grid (blocks of places)."""
    at = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    ok = at < tl.load(counted)
    of_inputs = tl.zeros([BLOCK_R], tl.float32)
    of_grads = tl.zeros([BLOCK_R], tl.float32)
    label = tl.load(labels + at, mask=ok, other=-1)
    x_row = tl.multiple_of(tl.load(input_rows + at, mask=ok, other=0).to(tl.int64) * input_row, INPUTS_ALIGNED)
    d_row = tl.multiple_of(tl.load(grad_rows + at, mask=ok, other=0).to(tl.int64) * grad_row, GRADS_ALIGNED)
    for first in range(0, columns, BLOCK):
        column = first + tl.arange(0, BLOCK)
        there = tl.max_constancy(column < columns, INPUTS_ALIGNED)
        x = tl.load(inputs + x_row[:, None] + column[None, :], mask=ok[:, None] & there[None, :], other=0)
        of_inputs += tl.sum(x.to(tl.float32) * x.to(tl.float32), 1)
    for first in range(0, outputs, BLOCK):
        column = first + tl.arange(0, BLOCK)
        there = tl.max_constancy(column < outputs, GRADS_ALIGNED)
        d = tl.load(grads + d_row[:, None] + column[None, :], mask=ok[:, None] & there[None, :], other=0)
        of_grads += tl.sum(d.to(tl.float32) * d.to(tl.float32), 1)
    product = of_inputs.to(tl.float64) * of_grads.to(tl.float64)
    first_label = tl.max(label)
    if tl.min(tl.where(ok, label, first_label)) == first_label:
        if first_label >= 0:
            tl.atomic_add(norms + first_label, tl.sum(tl.where(ok, product, 0.0), 0), sem="relaxed")
    else:
        tl.atomic_add(norms + label, product, mask=ok, sem="relaxed")
