"""class_gram_samples in Triton: one launch for all parameters, a program some columns of one of them.

A program sums its columns by class, S = (class of each row) D, and adds S S^T to the parameter's Gram matrix: the
class gradients live in registers only. M parameters of N samples; C classes in blocks of `KB`.
"""

# mypy: disable-error-code="no-untyped-def"
# (what Triton compiles has no types of Python)

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from imbdyn.ops._triton import launching_on
from imbdyn.ops.class_gram.samples import class_gram_samples_portable

#: Columns that are summed at once, and how often: a program has as many atomic additions as pairs of classes.
_COLUMNS, _TURNS = 64, 4
_ROWS = 32
#: Classes of one block: [KB, KB] sums are kept in registers.
_SMALLEST_BLOCK, _LARGEST_BLOCK = 16, 64
#: Numbers in the table: of a parameter address, columns and row stride; of a program its parameter and first column.
_OF_PARAMETER, _OF_PROGRAM = 3, 2

#: Tables that CUDA graphs copy each time they run: their memory must not be anybody else's by then.
_IN_GRAPHS: list[Tensor] = []


@triton.jit
def sum_by_class(d_ptr, row_stride, labels_ptr, label_stride, ignore_index, num_rows, num_columns, column, first_class,
                 num_classes, KB: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
                 PRECISION: tl.constexpr):  # fmt: skip
    """Return sums [KB, COLUMNS], the classes' squared row norms [KB] over these columns, and their counts [KB]."""
    classes = first_class + tl.arange(0, KB)
    columns = column + tl.arange(0, COLUMNS)
    total = tl.zeros((KB, COLUMNS), tl.float32)
    wrong = tl.zeros((KB, COLUMNS), tl.float32)
    norm_sq = tl.zeros((KB,), tl.float32)
    count = tl.zeros((KB,), tl.int32)
    for first in range(0, num_rows, ROWS):
        rows = first + tl.arange(0, ROWS).to(tl.int64)
        label = tl.load(labels_ptr + rows * label_stride, mask=rows < num_rows, other=-1)
        counted = (label >= 0) & (label != ignore_index)
        of_class = (label[None, :] == tl.where(classes < num_classes, classes, -1)[:, None]) & counted[None, :]
        inside = (rows < num_rows)[:, None] & (columns < num_columns)[None, :]
        d = tl.load(d_ptr + rows[:, None] * row_stride + columns[None, :], mask=inside, other=0.0)
        # 0 times NaN is NaN: what is not finite must not reach the other classes
        finite = tl.abs(d) < float("inf")
        one_hot = of_class.to(tl.float32)
        total = tl.dot(one_hot, tl.where(finite, d, 0.0), total, input_precision=PRECISION)
        wrong = tl.dot(of_class.to(tl.float16), (~finite).to(tl.float16), wrong)
        norm_sq += tl.sum(tl.where(of_class, tl.sum(d * d, 1)[None, :], 0.0), 1)
        count += tl.sum(of_class.to(tl.int32), 1)
    return tl.where(wrong > 0, float("nan"), total), norm_sq, count


@triton.jit
def samples_kernel(table_ptr, labels_ptr, gram_ptr, norm_ptr, num_parameters, num_rows, num_classes, label_stride,
                   ignore_index, KB: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, TURNS: tl.constexpr,
                   PRECISION: tl.constexpr):  # fmt: skip
    """Axis 0: programs of the table; axis 1: pairs of blocks of classes, of which the upper triangle has work."""
    blocks = tl.cdiv(num_classes, KB)
    first_a = tl.program_id(1) // blocks * KB
    first_b = tl.program_id(1) % blocks * KB
    if first_b < first_a:
        return
    of_program = table_ptr + 3 * num_parameters + 2 * tl.program_id(0)
    parameter = tl.load(of_program)
    first_column = tl.load(of_program + 1)
    d_ptr = tl.load(table_ptr + 3 * parameter).to(tl.pointer_type(tl.float32))
    num_columns = tl.load(table_ptr + 3 * parameter + 1)
    row_stride = tl.load(table_ptr + 3 * parameter + 2)
    gram = tl.zeros((KB, KB), tl.float32)
    norm_sq = tl.zeros((KB,), tl.float32)
    count_a = tl.zeros((KB,), tl.int32)
    count_b = tl.zeros((KB,), tl.int32)
    for turn in range(TURNS):
        column = first_column + turn * COLUMNS
        if column < num_columns:
            s_a, norm_a, count_a = sum_by_class(d_ptr, row_stride, labels_ptr, label_stride, ignore_index, num_rows,
                                                num_columns, column, first_a, num_classes, KB, ROWS, COLUMNS,
                                                PRECISION)  # fmt: skip
            s_b, _,  count_b = sum_by_class(d_ptr, row_stride, labels_ptr, label_stride, ignore_index, num_rows,
                                                num_columns, column, first_b, num_classes, KB, ROWS, COLUMNS,
                                                PRECISION)  # fmt: skip
            gram = tl.dot(s_a, tl.trans(s_b), gram, input_precision=PRECISION)
            norm_sq += norm_a
    a = first_a + tl.arange(0, KB)
    b = first_b + tl.arange(0, KB)
    present = (count_a > 0)[:, None] & (count_b > 0)[None, :]
    of_parameter = gram_ptr + parameter * num_classes * num_classes
    part = gram.to(tl.float64)
    tl.atomic_add(of_parameter + a[:, None] * num_classes + b[None, :], part, mask=present, sem="relaxed")
    if first_a == first_b:
        tl.atomic_add(norm_ptr + parameter * num_classes + a, norm_sq.to(tl.float64), mask=count_a > 0, sem="relaxed")
    else:
        tl.atomic_add(of_parameter + b[None, :] * num_classes + a[:, None], part, mask=present, sem="relaxed")


def class_gram_samples_triton(
    gradients: Sequence[Tensor], labels: Tensor, num_classes: int, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """Return gram [M, C, C] and sample_norm_sq [M, C]; see `imbdyn.ops.class_gram_samples`.

    Float32 in, float32 sums of some hundred products, float64 between programs. Gradients of another dtype, or whose
    columns are not neighbours, are copied; float64 ones, and all where torch asks for deterministic algorithms (the
    order of the additions is not fixed here), go the way of one parameter after the other.
    """
    if torch.are_deterministic_algorithms_enabled() or any(d.dtype == torch.float64 for d in gradients):
        return class_gram_samples_portable(gradients, labels, num_classes, ignore_index)
    count = len(gradients)
    numbers = labels.new_zeros((count, num_classes, num_classes + 1), dtype=torch.float64).view(-1)
    gram = numbers[: count * num_classes**2].view(count, num_classes, num_classes)
    norms = numbers[count * num_classes**2 :].view(count, num_classes)
    rows = labels.shape[0]
    read = [d if d.dtype == torch.float32 and d.stride(1) == 1 else d.float().contiguous() for d in gradients]
    of_parameters, of_programs = [], []
    for i, d in enumerate(read):
        of_parameters += [d.data_ptr(), d.shape[1], d.stride(0)]
        for column in range(0, d.shape[1], _COLUMNS * _TURNS):
            of_programs += [i, column]
    if not of_programs or not rows:
        return gram, norms
    block = min(_LARGEST_BLOCK, max(_SMALLEST_BLOCK, triton.next_power_of_2(num_classes)))
    blocks = triton.cdiv(num_classes, block)
    on_host = torch.tensor(of_parameters + of_programs, dtype=torch.int64, pin_memory=labels.is_cuda)
    if labels.is_cuda and torch.cuda.is_current_stream_capturing():
        _IN_GRAPHS.append(on_host)
    table = on_host.to(labels.device, non_blocking=True)
    with launching_on(labels):
        samples_kernel[(len(of_programs) // _OF_PROGRAM, blocks * blocks)](
            table, labels, gram, norms, count, rows, num_classes, labels.stride(0), ignore_index,
            KB=block, ROWS=_ROWS, COLUMNS=_COLUMNS, TURNS=_TURNS,
            PRECISION="ieee" if torch.version.hip else "tf32x3", num_warps=4 if block < 64 else 8,
        )  # fmt: skip
    return gram, norms
