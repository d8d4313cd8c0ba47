"""parameter_norms in Triton: one launch over the chunks of all tensors, and a small one that adds their sums up."""

# What Triton compiles has no types of Python.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from imbdyn.ops._triton import launching_on
from imbdyn.ops.parameter_norms.table import COLUMNS, table_of


@triton.jit
def _array(address, TYPE: tl.constexpr, ALIGNED: tl.constexpr):
    """Return an address as a pointer to an element type (csrc/common/arrays.h)."""
    if TYPE == 0:
        pointer = address.to(tl.pointer_type(tl.float64))
    elif TYPE == 1:
        pointer = address.to(tl.pointer_type(tl.float32))
    elif TYPE == 2:
        pointer = address.to(tl.pointer_type(tl.bfloat16))
    else:
        pointer = address.to(tl.pointer_type(tl.float16))
    return tl.multiple_of(pointer, 16) if ALIGNED else pointer


@triton.jit(do_not_specialize=["first"])
def sum_chunks(
    table, first, partial,
    W: tl.constexpr, GRAD: tl.constexpr, OLD: tl.constexpr, ALIGNED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """partial[chunk] = (sum w^2, sum grad^2, sum dw^2, sum w dw) in float64; NaN for what was not given (-1)."""
    chunk = (first + tl.program_id(0)).to(tl.int64)
    at = table + chunk * 4
    w_at = _array(tl.load(at), W, ALIGNED)
    grad_at = _array(tl.load(at + 1), GRAD, ALIGNED)
    old_at = _array(tl.load(at + 2), OLD, ALIGNED)
    size = tl.load(at + 3).to(tl.int32)
    w_w = tl.zeros([BLOCK], tl.float64)
    grad_grad = tl.zeros([BLOCK], tl.float64)
    dw_dw = tl.zeros([BLOCK], tl.float64)
    w_dw = tl.zeros([BLOCK], tl.float64)
    whole = size // BLOCK * BLOCK
    for begin in range(0, whole, BLOCK):  # without a mask, which would make wide loads narrow
        i = begin + tl.arange(0, BLOCK)
        w = tl.load(w_at + i)
        if GRAD >= 0:
            grad = tl.load(grad_at + i)
        if OLD >= 0:
            old = tl.load(old_at + i)
        w = w.to(tl.float64)
        w_w += w * w
        if GRAD >= 0:
            grad = grad.to(tl.float64)
            grad_grad += grad * grad
        if OLD >= 0:
            dw = w - old.to(tl.float64)
            dw_dw += dw * dw
            w_dw += w * dw
    if whole < size:
        i = whole + tl.arange(0, BLOCK)
        w = tl.load(w_at + i, mask=i < size, other=0).to(tl.float64)
        w_w += w * w
        if GRAD >= 0:
            grad = tl.load(grad_at + i, mask=i < size, other=0).to(tl.float64)
            grad_grad += grad * grad
        if OLD >= 0:
            dw = w - tl.load(old_at + i, mask=i < size, other=0).to(tl.float64)
            dw_dw += dw * dw
            w_dw += w * dw
    nothing = float("nan")
    to = partial + chunk * 4
    tl.store(to, tl.sum(w_w, 0))
    tl.store(to + 1, tl.sum(grad_grad, 0) if GRAD >= 0 else nothing)
    tl.store(to + 2, tl.sum(dw_dw, 0) if OLD >= 0 else nothing)
    tl.store(to + 3, tl.sum(w_dw, 0) if OLD >= 0 else nothing)


@triton.jit(do_not_specialize=["chunks", "num_tensors", "num_rows"])
def add_chunks(table, partial, chunks, num_tensors, num_rows, tensors, rows, LONG: tl.constexpr, SHORT: tl.constexpr):
    """tensors[p] and rows[k] = (sqrt, sqrt, sqrt, 1) of the sums of their chunks, in a fixed order.

    A program adds up a tensor, LONG chunks side by side, or SHORT rows, whose chunks are few.
    """
    ends = table + chunks.to(tl.int64) * 4
    which = tl.program_id(0)
    column = tl.arange(0, 4)
    if which < num_tensors:
        begin = tl.load(ends + which.to(tl.int64) * 2)
        end = tl.load(ends + which.to(tl.int64) * 2 + 1)
        sums = tl.zeros([LONG, 4], tl.float64)
        for at in range(begin, end, LONG):
            i = at + tl.arange(0, LONG)
            sums += tl.load(partial + i[:, None] * 4 + column[None, :], mask=(i < end)[:, None], other=0)
        total = tl.sum(sums, 0)
        total = tl.where(column < 3, tl.sqrt(total), total)
        tl.store(tensors + which.to(tl.int64) * 4 + column, total)
    else:
        row = (which - num_tensors).to(tl.int64) * SHORT + tl.arange(0, SHORT)
        there = row < num_rows
        begins = tl.load(ends + (num_tensors + row) * 2, mask=there, other=0)
        chunks_of = tl.load(ends + (num_tensors + row) * 2 + 1, mask=there, other=0) - begins
        totals = tl.zeros([SHORT, 4], tl.float64)
        for k in range(0, tl.max(chunks_of, 0)):
            at_k = partial + (begins + k)[:, None] * 4 + column[None, :]
            totals += tl.load(at_k, mask=(k < chunks_of)[:, None], other=0)
        totals = tl.where(column[None, :] < 3, tl.sqrt(totals), totals)
        tl.store(rows + row[:, None] * 4 + column[None, :], totals, mask=there[:, None])


_BLOCK, _WARPS, _LONG, _SHORT = 1024, 8, 256, 32


def parameter_norms_triton(
    params: Sequence[Tensor], grads: Sequence[Tensor | None], previous: Sequence[Tensor | None], rows: int
) -> tuple[Tensor, Tensor]:
    """Return what `imbdyn.ops.parameter_norms` returns; rows is -1 for none."""
    device = params[0].device if params else None
    num_rows = params[rows].shape[0] if rows >= 0 else 0
    out = torch.empty(len(params), 4, dtype=torch.float64, device=device)
    rows_out = torch.empty(num_rows, 4, dtype=torch.float64, device=device)
    if not params:
        return out, rows_out
    with launching_on(params[0]):
        table, alive = table_of(params, grads, previous, rows)
        work = table.work
        partial = torch.empty(work.chunks, COLUMNS, dtype=torch.float64, device=device)
        for group in work.groups:
            sum_chunks[(group.chunks,)](
                table.on_device, group.first, partial, *group.types, group.aligned, _BLOCK, num_warps=_WARPS
            )
        add_chunks[(len(params) + triton.cdiv(num_rows, _SHORT),)](
            table.on_device, partial, work.chunks, len(params), num_rows, out, rows_out, _LONG, _SHORT, num_warps=4
        )
        del alive
    return out, rows_out
