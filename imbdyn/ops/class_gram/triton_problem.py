"""One call of class_gram in Triton: its numbers, its results and the kernels that it launches."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from imbdyn.ops.class_gram.order import ClassOrder
from imbdyn.ops.class_gram.triton_choice import (
    FREE,
    SLOT_BYTES,
    Forced,
    Norms,
    adds_to_classes,
    chunk_size,
    gradient_config,
    gram_is_cheaper,
    has_large_blocks,
    norms_of,
    pairs_config,
    slots_config,
    within_config,
)
from imbdyn.ops.class_gram.triton_convolution import ROWS, Geometry, Operand
from imbdyn.ops.class_gram.triton_gradients import rows_kernel, samples_kernel
from imbdyn.ops.class_gram.triton_pairs import pairs_kernel, within_kernel
from imbdyn.ops.class_gram.triton_slots import row_norms_kernel, slots_kernel

#: How float32 products are made that are to be exact: matrix units of AMD multiply float32 themselves.
_EXACT = "tf32x3" if torch.version.hip is None else "ieee"


def float32_precision() -> str:
    """Return how products of float32 are made, as `tl.dot` names it: torch's own setting decides."""
    return _EXACT if torch.get_float32_matmul_precision() == "highest" or torch.version.hip is not None else "tf32"


def _blocks(numbers: int, block: int) -> int:
    return -(-numbers // block)


class Problem:
    """Rows in class order, where each sample has L of them, or a convolution's places."""

    def __init__(
        self,
        inputs: Operand,
        grads: Operand,
        length: int,
        order: ClassOrder,
        sample_norms: bool,
        bias: bool,
        geometry: Geometry = ROWS,
        forced: Forced = FREE,
    ) -> None:
        """Take inputs [S, L, I] (of a convolution its images) and grads [S, L, O]; results are made by `run`."""
        self.inputs, self.grads, self.length, self.order = inputs, grads, length, order
        self.norms, self.bias, self.geometry, self.forced = sample_norms, bias, geometry, forced
        self.samples, self.outputs = len(order.samples), grads.columns
        self.columns = geometry.columns or inputs.columns
        self.classes = len(order.start) - 1
        self.dtype = inputs.tensor.dtype
        self.precision = float32_precision() if self.dtype == torch.float32 else "ieee"
        made = [self._empty(n) for n in ((self.classes, self.classes), (self.classes,)) * (2 if bias else 1)]
        self.gram, self.norm, self.bias_gram, self.bias_norm = made[0], made[1], made[-2], made[-1]
        self.made = made

    def _empty(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, dtype=torch.float64, device=self.grads.tensor.device)

    def results(self) -> tuple[Tensor, ...]:
        """Return gram and norms of the weight, and of the bias if it was wanted."""
        return (self.gram, self.norm, self.bias_gram, self.bias_norm) if self.bias else (self.gram, self.norm)

    def _clear(self, *more: Tensor) -> None:
        torch._foreach_zero_([*(self.made if self.norms else self.made[::2]), *more])
        if not self.norms:
            for t in self.made[1::2]:
                t.fill_(torch.nan)

    def run(self) -> None:
        """Launch what the way needs."""
        if not self.grads.tensor.numel() or not self.inputs.tensor.numel():
            self._clear()
            if self.bias and self.grads.tensor.numel():
                self._pairs(weight=False, bias=True)
            return
        way = self.forced.way
        if way is None:
            shapes = (self.samples, self.length, self.columns, self.outputs, self.classes)
            way = "gram" if gram_is_cheaper(*shapes, self.dtype, self.precision) else "direct"
        if way == "gram":
            self._clear()
            self._pairs(weight=True, bias=self.bias)
            return
        self._direct()
        if self.bias:
            self._bias_by_sums()

    def _pairs(self, *, weight: bool, bias: bool) -> None:
        rows = self.samples * self.length
        block, columns, warps, stages = self.forced.pairs or pairs_config(rows, self.dtype, self.precision)
        blocks = _blocks(rows, block)
        a, d, order, unit = self.inputs, self.grads, self.order, self.order.unit
        pairs_kernel[(blocks, blocks)](
            a.tensor, d.tensor, order.samples, order.labels, order.rank, order.label_of_rank,
            order.samples if unit is None else unit, order.counted, self.gram, self.norm, self.bias_gram,
            self.bias_norm, self.classes, self.length, a.columns, a.sample, a.row, self.outputs, d.sample, d.row,
            weight, bias, self.norms, unit is not None, a.columns == 1, block, columns, a.aligned, d.aligned,
            self.precision, _EXACT, num_warps=warps, num_stages=stages,
        )  # fmt: skip

    def _within(self) -> None:
        block, columns, warps, stages = self.forced.within or within_config(self.dtype)
        a, d, order, unit = self.inputs, self.grads, self.order, self.order.unit
        within_kernel[(_blocks(self.samples * self.length, block),)](
            a.tensor, d.tensor, order.samples, order.labels, order.rank, order.samples if unit is None else unit,
            order.counted, self.norm, self.norm, self.length, a.columns, a.sample, a.row, self.outputs, d.sample, d.row,
            True, False, unit is not None, a.columns == 1, block, columns, a.aligned, d.aligned, self.precision,
            num_warps=warps, num_stages=stages,
        )  # fmt: skip

    def _row_index(self, operand: Operand) -> tuple[Tensor, int]:
        """Return an index of rows in class order and its stride: that of rows if samples lie evenly, else 1."""
        if self.length == 1:
            return self.order.samples, operand.sample
        if operand.sample == self.length * operand.row:
            return self.order.rows(self.length), operand.row
        return self.order.offsets(operand.sample, operand.row, self.length), 1

    def _direct(self) -> None:
        convolution = self.geometry is not ROWS
        by = Norms.NONE
        if self.norms:
            by = self.forced.norms or norms_of(
                self.samples, self.length, self.columns, self.outputs, self.order.unit is not None, convolution
            )
        by_sample = convolution or by in (Norms.BY_SLOT, Norms.IN_LOOP)
        block_o, block_i, block_r, warps, stages = config = self.forced.gradient or gradient_config(
            self.length, self.columns, self.outputs, self.dtype, by, by_sample,
            has_large_blocks(self.grads.tensor.device), self.geometry.channels,
        )  # fmt: skip
        del warps, stages, block_r
        ranks = min(self.samples, self.classes)
        add = by is Norms.BY_SLOT or adds_to_classes(ranks, self.columns, self.outputs)
        size = chunk_size(self.samples, self.columns, self.outputs, block_o, block_i, self.forced.parts)
        if by is Norms.BY_SLOT:
            size = 1
        chunks, count = self.order.chunks(size), self.order.slots(size)
        slots = ranks if add else count
        at_once = max(block_o, SLOT_BYTES // (4 * slots * self.columns) // block_o * block_o)
        at_once = self.outputs if add else min(self.outputs, at_once)
        numbers = self._empty(
            (-(-slots * at_once * self.columns // 2),)
        )  # float64 like the rest: one kernel clears all
        self._clear(*([numbers] if add else []))
        scratch = numbers.view(torch.float32)
        where = chunks.rank if add else chunks.number
        for first in range(0, self.outputs, at_once):
            outputs = min(at_once, self.outputs - first)
            tiles = _blocks(outputs, block_o) * _blocks(self.columns, block_i)
            d = self.grads.tensor
            if first:
                d = d.as_strided((1,), (1,), d.storage_offset() + first)
            grid = (count * tiles,)
            if by_sample:
                self._gradients_by_sample(grid, d, outputs, chunks, where, scratch, by, add, config)
            else:
                self._gradients_by_row(grid, d, outputs, chunks, where, scratch, add, config)
            label, used = (self.order.label_of_rank, self.order.present) if add else (chunks.label, chunks.used)
            self._add_slots(scratch, label, used, slots, outputs * self.columns)
        if by is Norms.BY_ROW:
            self._row_norms()
        elif by is Norms.WITHIN:
            self._within()

    def _gradients_by_row(self, grid, d, outputs, chunks, where, scratch, add, config) -> None:  # type: ignore[no-untyped-def]
        block_o, block_i, block_r, warps, stages = config
        (x_index, x_row), (d_index, d_row) = self._row_index(self.inputs), self._row_index(self.grads)
        rows_kernel[grid](
            self.inputs.tensor, d, x_index, d_index, chunks.begin, chunks.end, where, chunks.used, scratch, self.length,
            self.columns, x_row, outputs, d_row, add, block_o, block_i, block_r, self.inputs.aligned,
            math.gcd(self.grads.aligned, outputs), self.precision, num_warps=warps, num_stages=stages,
        )  # fmt: skip

    def _gradients_by_sample(self, grid, d, outputs, chunks, where, scratch, by, add, config) -> None:  # type: ignore[no-untyped-def]
        block_o, block_i, block_r, warps, stages = config
        a, g = self.inputs, self.geometry
        convolution = g is not ROWS
        aligned = math.gcd(a.aligned, *g.numbers[:2]) if convolution else a.aligned
        samples_kernel[grid](
            a.tensor, d, self.order.samples, chunks.begin, chunks.end, where, chunks.label, chunks.used, scratch,
            self.norm, self.length, self.columns, a.sample, a.row, outputs, self.grads.sample, self.grads.row,
            *g.numbers, convolution, convolution and g.channels % block_i == 0, g.channels, g.taps_x, g.out_x,
            by is Norms.BY_SLOT, by is not Norms.NONE, add, block_o, block_i, block_r, aligned,
            math.gcd(self.grads.aligned, outputs), self.precision, num_warps=warps, num_stages=stages,
        )  # fmt: skip

    def _add_slots(self, scratch: Tensor, label: Tensor, used: Tensor, slots: int, size: int) -> None:
        block_s, block, lanes, stages = self.forced.slots or slots_config(slots)
        blocks, step = _blocks(slots, block_s), block * lanes
        part = max(4 * step, _blocks(_blocks(size, max(1, 1056 // (blocks * (blocks + 1)))), step) * step)
        slots_kernel[(_blocks(size, part), blocks, blocks)](
            scratch, label, used, self.gram, self.classes, size, part, blocks == 1, lanes, block_s, block, _EXACT,
            num_warps=4, num_stages=stages,
        )  # fmt: skip

    def _row_norms(self) -> None:
        (x_index, x_row), (d_index, d_row) = self._row_index(self.inputs), self._row_index(self.grads)
        row_norms_kernel[(_blocks(self.samples, 16),)](
            self.inputs.tensor, self.grads.tensor, x_index, d_index, self.order.labels, self.order.counted, self.norm,
            self.columns, x_row, self.outputs, d_row, 16, 256, self.inputs.aligned, self.grads.aligned, num_warps=4,
        )  # fmt: skip

    def _bias_by_sums(self) -> None:
        """Add the bias's numbers from its samples' gradients, sums of rows; units are no neighbours, and take pairs."""
        if self.order.unit is not None:
            self._pairs(weight=False, bias=True)
            return
        d = self.grads
        sums = d
        if self.length > 1:
            shape = (self.samples, self.length, self.outputs)
            total = d.tensor.as_strided(shape, (d.sample, d.row, 1)).sum(1, dtype=torch.float32)
            sums = Operand(total, self.outputs, self.outputs, self.outputs)
        one = torch.ones(1, dtype=sums.tensor.dtype, device=sums.tensor.device)
        of_bias = Problem(Operand(one, 0, 0, 1), sums, 1, self.order, self.norms, bias=False)
        of_bias.run()
        self.bias_gram, self.bias_norm = of_bias.gram, of_bias.norm
