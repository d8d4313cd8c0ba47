"""Kernels of the direct way: gradients of chunks of a class's samples (order.py), made by tiles on tensor cores.

A chunk's gradient is D^T A over its rows. It goes to a slot of memory, float32 [outputs, columns]: its own, or with ADD
that of its class, to which it is added. `rows_kernel` takes rows as they come, of a list of their numbers;
`samples_kernel` one sample after the other, so that each one's gradient can be squared, and what convolutions see.
"""

# mypy: disable-error-code="no-untyped-def"

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
def _put(slots, slot, output, outputs, column, columns, gradient, ADD: tl.constexpr):
    """Store or add a tile."""
    target = slots + (slot.to(tl.int64) * outputs + output)[:, None] * columns + column[None, :]
    there = (output < outputs)[:, None] & (column < columns)[None, :]
    if ADD:
        tl.atomic_add(target, gradient, mask=there, sem="relaxed")
    else:
        tl.store(target, gradient, mask=there)


@triton.jit
def rows_kernel(
    inputs, grads, input_rows, grad_rows, chunk_begin, chunk_end, chunk_slot, chunks_used, slots,
    length, columns, input_row, outputs, grad_row,
    ADD: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_R: tl.constexpr,
    INPUTS_ALIGNED: tl.constexpr, GRADS_ALIGNED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Make one tile of one chunk's gradient: slots [slots, outputs, columns]; grid (chunks * tiles).

    Row p in class order is inputs + input_rows[p] * input_row and grads + grad_rows[p] * grad_row; a chunk has samples
    of `length` rows each.
    """
    tiles_i = tl.cdiv(columns, BLOCK_I)
    tiles = tl.cdiv(outputs, BLOCK_O) * tiles_i
    chunk, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    if chunk >= tl.load(chunks_used):
        return
    output, from_output = _columns(tile // tiles_i * BLOCK_O, outputs, BLOCK_O, GRADS_ALIGNED)
    column, from_column = _columns(tile % tiles_i * BLOCK_I, columns, BLOCK_I, INPUTS_ALIGNED)
    gradient = tl.zeros([BLOCK_O, BLOCK_I], tl.float32)
    end = tl.load(chunk_end + chunk) * length
    for first in range(tl.load(chunk_begin + chunk) * length, end, BLOCK_R):
        at = first + tl.arange(0, BLOCK_R)
        ok = at < end
        d_row = tl.multiple_of(tl.load(grad_rows + at, mask=ok, other=0).to(tl.int64) * grad_row, GRADS_ALIGNED)
        x_row = tl.multiple_of(tl.load(input_rows + at, mask=ok, other=0).to(tl.int64) * input_row, INPUTS_ALIGNED)
        d = tl.load(grads + d_row[:, None] + from_output[None, :], mask=ok[:, None], other=0)
        x = tl.load(inputs + x_row[:, None] + from_column[None, :], mask=ok[:, None], other=0)
        gradient = dot(tl.trans(d), x, gradient, PRECISION)
    _put(slots, tl.load(chunk_slot + chunk), output, outputs, column, columns, gradient, ADD)


@triton.jit
def _inputs(
    inputs, row, ok, column, first_column, input_row,
    y_stride, x_stride, height, width, y_step, x_step, y_before, x_before, y_dilation, x_dilation,
    CONVOLUTION: tl.constexpr, ONE_TAP: tl.constexpr, CHANNELS: tl.constexpr, TAPS_X: tl.constexpr,
    OUT_X: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """Return rows of one sample, [rows, BLOCK]; of a convolution, what its taps see at those places."""
    if CONVOLUTION:
        out_y = row // OUT_X
        y = out_y * y_step - y_before
        x = (row - out_y * OUT_X) * x_step - x_before
        if ONE_TAP:  # the tile lies within one tap
            tap = first_column // CHANNELS
            channel = first_column - tap * CHANNELS + tl.arange(0, BLOCK)
            y += tap // TAPS_X * y_dilation
            x += tap % TAPS_X * x_dilation
            seen = ok & (y >= 0) & (y < height) & (x >= 0) & (x < width)
            offset = tl.multiple_of(y * y_stride + x * x_stride, ALIGNED)
            return tl.load(inputs + (offset[:, None] + channel[None, :]), mask=seen[:, None], other=0)
        else:
            tap = column // CHANNELS
            y_seen = y[:, None] + (tap // TAPS_X * y_dilation)[None, :]
            x_seen = x[:, None] + (tap % TAPS_X * x_dilation)[None, :]
            seen = ok[:, None] & (y_seen >= 0) & (y_seen < height) & (x_seen >= 0) & (x_seen < width)
            offset = y_seen * y_stride + x_seen * x_stride + (column % CHANNELS)[None, :]
            return tl.load(inputs + offset, mask=seen, other=0)
    else:
        offset = tl.multiple_of(row * input_row, ALIGNED)
        return tl.load(inputs + (offset[:, None] + column[None, :]), mask=ok[:, None], other=0)


@triton.jit
def samples_kernel(
    inputs, grads, samples, chunk_begin, chunk_end, chunk_slot, chunk_label, chunks_used, slots, norms,
    length, columns, input_sample, input_row, outputs, grad_sample, grad_row,
    y_stride, x_stride, height, width, y_step, x_step, y_before, x_before, y_dilation, x_dilation,
    CONVOLUTION: tl.constexpr, ONE_TAP: tl.constexpr, CHANNELS: tl.constexpr, TAPS_X: tl.constexpr,
    OUT_X: tl.constexpr, ONE: tl.constexpr, NORMS: tl.constexpr, ADD: tl.constexpr, BLOCK_O: tl.constexpr,
    BLOCK_I: tl.constexpr, BLOCK_R: tl.constexpr, INPUTS_ALIGNED: tl.constexpr, GRADS_ALIGNED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Make one tile of one chunk's gradient: slots [slots, outputs, columns]; grid (chunks * tiles).

    NORMS: add the squares of each sample's tile to norms [C]. ONE: a chunk is one sample. Offsets within a sample are
    below 2^31.
    """
    tiles_i = tl.cdiv(columns, BLOCK_I)
    tiles = tl.cdiv(outputs, BLOCK_O) * tiles_i
    chunk, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    if chunk >= tl.load(chunks_used):
        return
    begin, end = tl.load(chunk_begin + chunk), tl.load(chunk_end + chunk)
    first_i = tile % tiles_i * BLOCK_I
    output, from_output = _columns(tile // tiles_i * BLOCK_O, outputs, BLOCK_O, GRADS_ALIGNED)
    column, from_column = _columns(first_i, columns, BLOCK_I, INPUTS_ALIGNED)
    gradient = tl.zeros([BLOCK_O, BLOCK_I], tl.float32)
    of_sample = tl.zeros([BLOCK_O, BLOCK_I], tl.float32)
    squares = tl.zeros([BLOCK_O], tl.float32)
    blocks = tl.cdiv(length, BLOCK_R)
    sample = tl.load(samples + begin).to(tl.int64)
    for block in range(0, blocks if ONE else (end - begin) * blocks):
        place = 0 if ONE else block // blocks
        if not ONE:
            sample = tl.load(samples + begin + place).to(tl.int64)
        row = (block - place * blocks) * BLOCK_R + tl.arange(0, BLOCK_R)
        ok = row < length
        d_row = tl.multiple_of(row * grad_row, GRADS_ALIGNED)
        from_d = grads + tl.multiple_of(sample * grad_sample, GRADS_ALIGNED)
        from_x = inputs + tl.multiple_of(sample * input_sample, INPUTS_ALIGNED)
        d = tl.load(from_d + (d_row[:, None] + from_output[None, :]), mask=ok[:, None], other=0)
        x = _inputs(
            from_x, row, ok, from_column, first_i, input_row, y_stride, x_stride, height, width, y_step, x_step,
            y_before, x_before, y_dilation, x_dilation, CONVOLUTION, ONE_TAP, CHANNELS, TAPS_X, OUT_X, BLOCK_I,
            INPUTS_ALIGNED,
        )  # fmt: skip
        if ONE or not NORMS:
            gradient = dot(tl.trans(d), x, gradient, PRECISION)
        else:
            of_sample = dot(tl.trans(d), x, of_sample, PRECISION)
            if (block + 1) % blocks == 0:
                own = tl.where((column < columns)[None, :], of_sample, 0.0)
                squares += tl.sum(own * own, 1)
                gradient += of_sample
                of_sample = tl.zeros([BLOCK_O, BLOCK_I], tl.float32)
    if NORMS:
        if ONE:
            own = tl.where((column < columns)[None, :], gradient, 0.0)
            squares = tl.sum(own * own, 1)
        total = tl.sum(tl.where(output < outputs, squares, 0.0), 0).to(tl.float64)
        tl.atomic_add(norms + tl.load(chunk_label + chunk), total, sem="relaxed")
    _put(slots, tl.load(chunk_slot + chunk), output, outputs, column, columns, gradient, ADD)
