"""Kernels of the direct way: the gradients of chunks of a class's samples (order.py), and inner products of chunks.

A chunk's gradient is D^T A over its rows, made by tiles on tensor cores and stored in float32; there is one slot of
memory a chunk, so that nothing is added up in memory and nothing has to be cleared.
"""

from __future__ import annotations

import triton
import triton.language as tl

from imbdyn.ops.class_gram.triton_dot import dot


@triton.jit
def _columns(first, columns, BLOCK: tl.constexpr, ALIGNED: tl.constexpr):
    """Return the columns of a tile; one behind the last is replaced by one that is there, and not stored later."""
    column = first + tl.arange(0, BLOCK)
    within = tl.where(column < columns, column, 0)
    return column, tl.max_contiguous(tl.multiple_of(within, ALIGNED), ALIGNED)


@triton.jit
def _input_rows(
    inputs, at, ok, column, input_rows, input_row, input_column,
    image_stride, y_stride, x_stride, height, width, y_step, x_step, y_before, x_before, y_dilation, x_dilation,
    first_column, CONVOLUTION: tl.constexpr, ONE_TAP: tl.constexpr, CHANNELS: tl.constexpr, TAPS_X: tl.constexpr,
    BLOCK: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """Return the inputs of rows at places `at`, [rows, BLOCK]; of a convolution, what its taps see there."""
    where = tl.load(input_rows + at, mask=ok, other=0)
    if CONVOLUTION:
        image = (where >> 32) * image_stride
        y = ((where >> 16) & 65535).to(tl.int32) * y_step - y_before
        x = (where & 65535).to(tl.int32) * x_step - x_before
        if ONE_TAP:  # a scalar tap: the tile lies within one
            tap = first_column // CHANNELS
            channel = first_column - tap * CHANNELS + tl.arange(0, BLOCK)
            y += tap // TAPS_X * y_dilation
            x += tap % TAPS_X * x_dilation
            seen = ok & (y >= 0) & (y < height) & (x >= 0) & (x < width)
            offset = image + y.to(tl.int64) * y_stride + x.to(tl.int64) * x_stride
            offset = tl.multiple_of(offset, ALIGNED)
            return tl.load(inputs + offset[:, None] + channel[None, :], mask=seen[:, None], other=0)
        else:
            tap = column // CHANNELS
            y_seen = y[:, None] + (tap // TAPS_X * y_dilation)[None, :]
            x_seen = x[:, None] + (tap % TAPS_X * x_dilation)[None, :]
            seen = ok[:, None] & (y_seen >= 0) & (y_seen < height) & (x_seen >= 0) & (x_seen < width)
            offset = image[:, None] + y_seen.to(tl.int64) * y_stride + x_seen.to(tl.int64) * x_stride
            return tl.load(inputs + offset + (column % CHANNELS)[None, :], mask=seen, other=0)
    else:
        offset = tl.multiple_of(where.to(tl.int64) * input_row, ALIGNED)
        return tl.load(
            inputs + offset[:, None] + (column.to(tl.int64) * input_column)[None, :], mask=ok[:, None], other=0
        )


@triton.jit
def gradients_kernel(
    inputs, grads, input_rows, grad_rows, chunk_begin, chunk_end, chunk_label, chunks_used, slots, norms,
    length, columns, input_row, input_column, outputs, grad_row, grad_column,
    image_stride, y_stride, x_stride, height, width, y_step, x_step, y_before, x_before, y_dilation, x_dilation,
    CONVOLUTION: tl.constexpr, ONE_TAP: tl.constexpr, CHANNELS: tl.constexpr, TAPS_X: tl.constexpr,
    NORMS: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_R: tl.constexpr,
    INPUTS_ALIGNED: tl.constexpr, GRADS_ALIGNED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Make one tile of one chunk's gradient: slots [slots, outputs, columns]; grid (slots * tiles).

    NORMS: each sample's tile is made first, and its square added to norms [C]; rows are then padded by sample.
    """
    tiles_i = tl.cdiv(columns, BLOCK_I)
    tiles = tl.cdiv(outputs, BLOCK_O) * tiles_i
    slot, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    if slot >= tl.load(chunks_used):
        return
    begin, end = tl.load(chunk_begin + slot), tl.load(chunk_end + slot)
    first_i = tile % tiles_i * BLOCK_I
    output, from_output = _columns(tile // tiles_i * BLOCK_O, outputs, BLOCK_O, GRADS_ALIGNED)
    column, from_column = _columns(first_i, columns, BLOCK_I, INPUTS_ALIGNED)
    output_offset = from_output.to(tl.int64) * grad_column
    gradient = tl.zeros([BLOCK_O, BLOCK_I], tl.float32)
    if NORMS:
        of_sample = tl.zeros([BLOCK_O, BLOCK_I], tl.float32)
        squares = tl.zeros([BLOCK_O], tl.float32)
        blocks = tl.cdiv(length, BLOCK_R)
        sample, row = begin, 0
        for _ in range(0, (end - begin) * blocks):
            in_sample = row + tl.arange(0, BLOCK_R)
            ok = in_sample < length
            at = sample * length + in_sample
            d_row = tl.multiple_of(tl.load(grad_rows + at, mask=ok, other=0).to(tl.int64) * grad_row, GRADS_ALIGNED)
            d = tl.load(grads + d_row[:, None] + output_offset[None, :], mask=ok[:, None], other=0)
            x = _input_rows(
                inputs, at, ok, from_column, input_rows, input_row, input_column, image_stride, y_stride, x_stride,
                height, width, y_step, x_step, y_before, x_before, y_dilation, x_dilation, first_i,
                CONVOLUTION, ONE_TAP, CHANNELS, TAPS_X, BLOCK_I, INPUTS_ALIGNED,
            )  # fmt: skip
            of_sample = dot(tl.trans(d), x, of_sample, PRECISION)
            row += BLOCK_R
            if row >= length:
                own = tl.where((column < columns)[None, :], of_sample, 0.0)
                squares += tl.sum(own * own, 1)
                gradient += of_sample
                of_sample = tl.zeros([BLOCK_O, BLOCK_I], tl.float32)
                row = 0
                sample += 1
        label = tl.load(chunk_label + slot)
        squares = tl.where(output < outputs, squares, 0.0)
        tl.atomic_add(norms + label, tl.sum(squares, 0).to(tl.float64), sem="relaxed")
    else:
        for first in range(begin * length, end * length, BLOCK_R):
            at = first + tl.arange(0, BLOCK_R)
            ok = at < end * length
            d_row = tl.multiple_of(tl.load(grad_rows + at, mask=ok, other=0).to(tl.int64) * grad_row, GRADS_ALIGNED)
            d = tl.load(grads + d_row[:, None] + output_offset[None, :], mask=ok[:, None], other=0)
            x = _input_rows(
                inputs, at, ok, from_column, input_rows, input_row, input_column, image_stride, y_stride, x_stride,
                height, width, y_step, x_step, y_before, x_before, y_dilation, x_dilation, first_i,
                CONVOLUTION, ONE_TAP, CHANNELS, TAPS_X, BLOCK_I, INPUTS_ALIGNED,
            )  # fmt: skip
            gradient = dot(tl.trans(d), x, gradient, PRECISION)
    target = (slot.to(tl.int64) * outputs + output)[:, None] * columns + column[None, :]
    tl.store(slots + target, gradient, mask=(output < outputs)[:, None] & (column < columns)[None, :])


@triton.jit
def slots_kernel(
    slots, chunk_label, chunks_used, gram, norms, num_classes, size, part,
    NORMS: tl.constexpr, ONE: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add inner products of chunks' gradients to gram [C, C]: grid (parts of `size` numbers, slot blocks i, j).

    ONE: there is one block of slots only. NORMS: every chunk is one sample, whose squared norm is added to norms [C].
    """
    i, j = tl.program_id(1), tl.program_id(2)
    used = tl.load(chunks_used)
    if (i > j) | (j * BLOCK_S >= used):
        return
    slot_i, slot_j = i * BLOCK_S + tl.arange(0, BLOCK_S), j * BLOCK_S + tl.arange(0, BLOCK_S)
    ok_i, ok_j = slot_i < used, slot_j < used
    # what was written last is read first: it may still be in the cache
    first = (tl.num_programs(0) - 1 - tl.program_id(0)).to(tl.int64) * part
    end = tl.minimum(first + part, size)
    products = tl.zeros([BLOCK_S, BLOCK_S], tl.float64)
    from_i, from_j = slots + slot_i.to(tl.int64) * size, slots + slot_j.to(tl.int64) * size
    for begin in range(first, end, BLOCK):
        at = begin + tl.arange(0, BLOCK)
        ok = at < end
        g_i = tl.load(from_i[:, None] + at[None, :], mask=ok_i[:, None] & ok[None, :], other=0)
        if ONE:
            g_j = g_i
        else:
            g_j = tl.load(from_j[:, None] + at[None, :], mask=ok_j[:, None] & ok[None, :], other=0)
        sums = tl.zeros([BLOCK_S, BLOCK_S], tl.float32)
        products += dot(g_i, tl.trans(g_j), sums, PRECISION).to(tl.float64)
    label_i = tl.load(chunk_label + slot_i, mask=ok_i, other=0).to(tl.int64)
    label_j = tl.load(chunk_label + slot_j, mask=ok_j, other=0).to(tl.int64)
    ok = ok_i[:, None] & ok_j[None, :]
    tl.atomic_add(gram + label_i[:, None] * num_classes + label_j[None, :], products, mask=ok, sem="relaxed")
    if i < j:
        tl.atomic_add(gram + label_j[None, :] * num_classes + label_i[:, None], products, mask=ok, sem="relaxed")
    elif NORMS:
        own = tl.sum(tl.where(slot_i[:, None] == slot_j[None, :], products, 0.0), 1)
        tl.atomic_add(norms + label_i, own, mask=ok_i, sem="relaxed")


@triton.jit
def row_norms_kernel(
    inputs, grads, input_rows, grad_rows, labels, counted, norms,
    columns, input_row, input_column, outputs, grad_row, grad_column,
    BLOCK_R: tl.constexpr, BLOCK: tl.constexpr, INPUTS_ALIGNED: tl.constexpr, GRADS_ALIGNED: tl.constexpr,
):  # fmt: skip
    """Add ||inputs_r||^2 ||grads_r||^2 to norms [C], where rows are samples: grid (blocks of places)."""
    at = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    ok = at < tl.load(counted)
    of_inputs = tl.zeros([BLOCK_R], tl.float32)
    of_grads = tl.zeros([BLOCK_R], tl.float32)
    x_row = tl.multiple_of(tl.load(input_rows + at, mask=ok, other=0).to(tl.int64) * input_row, INPUTS_ALIGNED)
    for first in range(0, columns, BLOCK):
        column = first + tl.arange(0, BLOCK)
        there = tl.max_constancy(column < columns, INPUTS_ALIGNED)
        step = column.to(tl.int64) * input_column
        x = tl.load(inputs + x_row[:, None] + step[None, :], mask=ok[:, None] & there[None, :], other=0).to(tl.float32)
        of_inputs += tl.sum(x * x, 1)
    d_row = tl.multiple_of(tl.load(grad_rows + at, mask=ok, other=0).to(tl.int64) * grad_row, GRADS_ALIGNED)
    for first in range(0, outputs, BLOCK):
        column = first + tl.arange(0, BLOCK)
        there = tl.max_constancy(column < outputs, GRADS_ALIGNED)
        step = column.to(tl.int64) * grad_column
        d = tl.load(grads + d_row[:, None] + step[None, :], mask=ok[:, None] & there[None, :], other=0).to(tl.float32)
        of_grads += tl.sum(d * d, 1)
    product = of_inputs.to(tl.float64) * of_grads.to(tl.float64)
    label = tl.load(labels + at, mask=ok, other=-1)
    first_label = tl.max(label)
    if tl.min(tl.where(ok, label, first_label)) == first_label:
        if first_label >= 0:
            tl.atomic_add(norms + first_label, tl.sum(tl.where(ok, product, 0.0), 0), sem="relaxed")
    else:
        tl.atomic_add(norms + label, product, mask=ok, sem="relaxed")
