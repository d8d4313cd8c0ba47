"""class_gram in Triton. Nothing waits for the device: the way is chosen by shapes, and what labels say stays there.

R rows, I inputs, O outputs, S samples of L rows each.

    gram     R^2 (I + O) / 2   pairs of rows, both products and the class-block sum in one kernel (triton_pairs.py)
    direct   R I O             gradients of chunks of a class's samples, and their inner products (triton_gradients.py)

bfloat16 and float16 products are exact, with float32 sums. float32 products are TF32 (11 bits) like torch's own matrix
products unless `torch.get_float32_matmul_precision()` is "highest", the default, where three TF32 products make one of
about 22 bits. What is read with a stride in its last dimension is copied first. float64, and everything under
`torch.use_deterministic_algorithms`, goes to waitless.py: the kernels add tiles with atomics.
"""

from __future__ import annotations

import math

import torch
import triton
from torch import Tensor

from imbdyn.ops._triton import launching_on
from imbdyn.ops.class_gram.order import ClassOrder, class_order, make_order
from imbdyn.ops.class_gram.triton_choice import (
    FREE,
    SLOT_BYTES,
    Forced,
    Norms,
    chunk_size,
    gradient_config,
    gram_is_cheaper,
    has_large_blocks,
    norms_of,
    pairs_config,
    slots_config,
    within_config,
)
from imbdyn.ops.class_gram.triton_convolution import Geometry, geometry_of, no_geometry, unfolded
from imbdyn.ops.class_gram.triton_gradients import gradients_kernel, row_norms_kernel, slots_kernel
from imbdyn.ops.class_gram.triton_pairs import pairs_kernel, within_kernel
from imbdyn.ops.class_gram.waitless import gram_conv_waitless, gram_waitless


def float32_precision() -> str:
    """Return how products of float32 are made, as `tl.dot` names it: torch's own setting decides."""
    if torch.version.hip is not None:
        return "ieee"  # its matrix units multiply float32
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def class_gram_triton(
    inputs: Tensor,
    grad_outputs: Tensor,
    labels: Tensor,
    num_classes: int,
    samples: Tensor | None,
    ignore_index: int,
    sample_norms: bool = True,
) -> tuple[Tensor, ...]:
    """Return (gram, sample_norm_sq); see `imbdyn.ops.class_gram`."""
    return rows_gram(inputs, grad_outputs, labels, num_classes, samples, ignore_index, sample_norms, bias=False)


def class_gram_linear_triton(
    inputs: Tensor,
    grad_outputs: Tensor,
    labels: Tensor,
    num_classes: int,
    samples: Tensor | None,
    ignore_index: int,
    sample_norms: bool = True,
) -> tuple[Tensor, ...]:
    """Return (gram, sample_norm_sq) of the weight and of the bias; see `imbdyn.ops.class_gram_linear`."""
    return rows_gram(inputs, grad_outputs, labels, num_classes, samples, ignore_index, sample_norms, bias=True)


def rows_gram(
    inputs: Tensor,
    grad_outputs: Tensor,
    labels: Tensor,
    num_classes: int,
    samples: Tensor | None,
    ignore_index: int,
    sample_norms: bool,
    *,
    bias: bool,
    forced: Forced = FREE,
) -> tuple[Tensor, ...]:
    """Return gram and sample_norm_sq of the weight, and if wanted those of the bias."""
    order = (
        class_order(labels, num_classes, ignore_index)
        if samples is None
        else make_order(labels, num_classes, ignore_index, samples)
    )
    a_SLI, d_SLO = (t if t.dim() == 3 else t[:, None] for t in (inputs, grad_outputs))
    if inputs.dtype == torch.float64 or torch.are_deterministic_algorithms_enabled():
        found = gram_waitless(a_SLI, d_SLO, order, sample_norms)
        if not bias:
            return found
        ones = a_SLI.new_ones(1).expand(*a_SLI.shape[:2], 1)
        return found + gram_waitless(ones, d_SLO, order, sample_norms)
    problem = Problem(_with_near_columns(a_SLI), _with_near_columns(d_SLO), order, sample_norms, bias, forced=forced)
    with launching_on(inputs):
        problem.run()
    return problem.results()


def _with_near_columns(t: Tensor) -> Tensor:
    return t if t.stride(-1) == 1 or t.shape[-1] == 1 else t.contiguous()


def _aligned(t: Tensor, *strides: int) -> int:
    """Return how many neighbouring elements may be read at once: a power of 2, of at most 16 bytes."""
    if t.stride(-1) != 1 and t.shape[-1] > 1:
        return 1
    return math.gcd(16 // t.element_size(), t.shape[-1], *strides)


def class_gram_conv_triton(
    inputs: Tensor,
    grad_outputs: Tensor,
    labels: Tensor,
    num_classes: int,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    ignore_index: int,
    sample_norms: bool = True,
    *,
    forced: Forced = FREE,
) -> tuple[Tensor, ...]:
    """Return (gram, sample_norm_sq); see `imbdyn.ops.class_gram_conv`. `padding` is that before each dimension.

    What does not lie channels last is copied so.
    """
    order = class_order(labels, num_classes, ignore_index)
    numbers = (kernel_size, stride, padding, dilation)
    geometry = geometry_of(inputs, grad_outputs, *numbers) if groups == 1 else None
    waits = inputs.dtype == torch.float64 or torch.are_deterministic_algorithms_enabled()
    if waits or geometry is None:
        return gram_conv_waitless(inputs, grad_outputs, order, *numbers, groups, sample_norms)
    places, columns, outputs = geometry.places, geometry.columns, grad_outputs.shape[1]
    if geometry.pointwise:
        a_SLI, geometry = geometry.inputs.flatten(1, 2), no_geometry()
    elif forced.way == "gram" or (
        forced.way is None
        and gram_is_cheaper(len(labels), places, columns, outputs, num_classes, inputs.dtype, float32_precision())
    ):
        forced = forced._replace(way="gram")
        a_SLI, geometry = unfolded(geometry.inputs, geometry), no_geometry()
    else:
        forced, a_SLI = forced._replace(way="direct"), geometry.inputs
    with launching_on(inputs):
        problem = Problem(a_SLI, grads_last(grad_outputs), order, sample_norms, False, geometry, forced)
        problem.run()
    return problem.results()


def grads_last(grad_outputs: Tensor) -> Tensor:
    """Return [U, O, *out] as [U, places, O], where channels lie last without a copy."""
    return grad_outputs.movedim(1, -1).flatten(1, -2).contiguous()


class Problem:
    """One call: its numbers, its results and the kernels that it launches."""

    def __init__(
        self,
        inputs: Tensor,
        grads: Tensor,
        order: ClassOrder,
        sample_norms: bool,
        bias: bool,
        geometry: Geometry | None = None,
        forced: Forced = FREE,
    ) -> None:
        """Take inputs [S, L, I] (of a convolution its geometry's) and grads [S, L, O], and make zeros for results."""
        self.inputs, self.grads, self.order, self.norms, self.bias = inputs, grads, order, sample_norms, bias
        self.geometry, self.forced = geometry or no_geometry(), forced
        self.samples, self.length, self.outputs = grads.shape
        self.columns = self.geometry.columns or inputs.shape[-1]
        self.classes = len(order.start) - 1
        self.precision = float32_precision() if inputs.dtype == torch.float32 else "ieee"
        self.gram, self.norm, self.bias_gram, self.bias_norm = self._zeros()

    def _zeros(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        shapes = [(self.classes, self.classes), (self.classes,)] * (2 if self.bias else 1)
        made = [torch.empty(shape, dtype=torch.float64, device=self.grads.device) for shape in shapes]
        torch._foreach_zero_(made if self.norms else made[::2])
        if not self.norms:
            for t in made[1::2]:
                t.fill_(torch.nan)
        return made[0], made[1], made[-2], made[-1]

    def results(self) -> tuple[Tensor, ...]:
        """Return gram and norms of the weight, and of the bias if it was wanted."""
        return (self.gram, self.norm, self.bias_gram, self.bias_norm) if self.bias else (self.gram, self.norm)

    def run(self) -> None:
        """Launch what the way needs."""
        if not self.grads.numel():
            return
        if not self.inputs.numel():
            if self.bias:
                self._pairs(weight=False, bias=True)
            return
        way = self.forced.way
        if way is None:
            shapes = (self.samples, self.length, self.columns, self.outputs, self.classes)
            way = "gram" if gram_is_cheaper(*shapes, self.grads.dtype, self.precision) else "direct"
        if way == "gram":
            self._pairs(weight=True, bias=self.bias)
            return
        self._direct()
        if self.bias:
            self._bias_by_sums()

    def _pairs(self, *, weight: bool, bias: bool) -> None:
        rows = self.samples * self.length
        block, columns, warps, stages = self.forced.pairs or pairs_config(rows, self.grads.dtype)
        blocks = triton.cdiv(rows, block)
        order, unit = self.order, self.order.unit
        pairs_kernel[(blocks, blocks)](
            self.inputs, self.grads, order.samples, order.labels, order.rank, order.label_of_rank,
            order.samples if unit is None else unit, order.start[-1:], self.gram, self.norm, self.bias_gram,
            self.bias_norm, self.classes, self.length, self.inputs.shape[-1], *self.inputs.stride(), self.outputs,
            *self.grads.stride(), weight, bias, self.norms, unit is not None, self.inputs.shape[-1] == 1, block,
            columns, _aligned(self.inputs, *self.inputs.stride()[:2]), _aligned(self.grads, *self.grads.stride()[:2]),
            self.precision, num_warps=warps, num_stages=stages,
        )  # fmt: skip

    def _within(self, *, weight: bool, bias: bool) -> None:
        rows = self.samples * self.length
        block, columns, warps, stages = self.forced.within or within_config(self.grads.dtype)
        order, unit = self.order, self.order.unit
        within_kernel[(triton.cdiv(rows, block),)](
            self.inputs, self.grads, order.samples, order.labels, order.rank, order.samples if unit is None else unit,
            order.start[-1:], self.norm, self.bias_norm, self.length, self.inputs.shape[-1], *self.inputs.stride(),
            self.outputs, *self.grads.stride(), weight, bias, unit is not None, self.inputs.shape[-1] == 1, block,
            columns, _aligned(self.inputs, *self.inputs.stride()[:2]), _aligned(self.grads, *self.grads.stride()[:2]),
            self.precision, num_warps=warps, num_stages=stages,
        )  # fmt: skip

    def _row_index(self, t: Tensor) -> tuple[Tensor, int]:
        """Return an index of rows in class order and its stride: that of rows if samples lie evenly, else 1."""
        sample, row = t.stride()[:2]
        if self.length == 1:
            return self.order.samples, sample
        if sample == self.length * row:
            return self.order.rows(self.length), row
        return self.order.offsets(sample, row, self.length), 1

    def _direct(self) -> None:
        d_index, d_row = self._row_index(self.grads)
        convolution = bool(self.geometry.columns)
        if convolution:
            x_index, x_row = self.order.places(*self.geometry.out), 1
            x_aligned = self.geometry.aligned
        else:
            x_index, x_row = self._row_index(self.inputs)
            x_aligned = _aligned(self.inputs, *self.inputs.stride()[:2])
        d_aligned = _aligned(self.grads, *self.grads.stride()[:2])
        wanted = self.forced.norms or norms_of(
            self.samples, self.length, self.columns, self.outputs, self.order.unit is not None, convolution
        )
        by = wanted if self.norms else Norms.NONE
        block_o, block_i, block_r, warps, stages = self.forced.gradient or gradient_config(
            self.columns, self.outputs, self.grads.dtype, by is Norms.IN_LOOP, has_large_blocks(self.grads.device),
            convolution and self.geometry.channels % 64 != 0,
        )  # fmt: skip
        size = 1 if by is Norms.BY_SLOT else chunk_size(self.samples, self.columns, self.outputs, block_o, block_i)
        chunks, slots = self.order.chunks(size), self.order.slots(size)
        at_once = max(block_o, SLOT_BYTES // (4 * slots * self.columns) // block_o * block_o)
        scratch = torch.empty(slots * min(self.outputs, at_once) * self.columns, device=self.grads.device)
        for first in range(0, self.outputs, at_once):
            d_part = self.grads[..., first : first + at_once]
            outputs = d_part.shape[-1]
            tiles = triton.cdiv(outputs, block_o) * triton.cdiv(self.columns, block_i)
            gradients_kernel[(slots * tiles,)](
                self.inputs, d_part, x_index, d_index, chunks.begin, chunks.end, chunks.label, chunks.used, scratch,
                self.norm, self.length, self.columns, x_row, self.inputs.stride(-1), outputs, d_row,
                self.grads.stride(-1), *self.geometry.numbers, convolution,
                convolution and self.geometry.channels % block_i == 0, self.geometry.channels, self.geometry.taps_x,
                by is Norms.IN_LOOP, block_o, block_i, block_r, x_aligned, math.gcd(d_aligned, outputs),
                self.precision, num_warps=warps, num_stages=stages,
            )  # fmt: skip
            self._add_slots(scratch, chunks.label, chunks.used, slots, outputs * self.columns, by is Norms.BY_SLOT)
        if by is Norms.BY_ROW:
            self._row_norms((x_index, x_row, x_aligned), (d_index, d_row, d_aligned))
        elif by is Norms.WITHIN:
            self._within(weight=True, bias=False)

    def _add_slots(self, scratch: Tensor, label: Tensor, used: Tensor, slots: int, size: int, norms: bool) -> None:
        block_s, block, warps, stages = self.forced.slots or slots_config(slots)
        blocks = triton.cdiv(slots, block_s)
        part = max(2048, triton.cdiv(triton.cdiv(size, max(1, 1056 // (blocks * (blocks + 1)))), block) * block)
        precision = "ieee" if torch.version.hip is not None else "tf32x3"
        slots_kernel[(triton.cdiv(size, part), blocks, blocks)](
            scratch, label, used, self.gram, self.norm, self.classes, size, part,
            norms, blocks == 1, block_s, block, precision, num_warps=warps, num_stages=stages,
        )  # fmt: skip

    def _row_norms(self, x: tuple[Tensor, int, int], d: tuple[Tensor, int, int]) -> None:
        """Take of each matrix the index of its rows, its stride and its alignment."""
        (x_index, x_row, x_aligned), (d_index, d_row, d_aligned) = x, d
        row_norms_kernel[(triton.cdiv(self.samples, 16),)](
            self.inputs, self.grads, x_index, d_index, self.order.labels, self.order.start[-1:], self.norm,
            self.columns, x_row, self.inputs.stride(-1), self.outputs, d_row, self.grads.stride(-1),
            16, 256, x_aligned, d_aligned, num_warps=4,
        )  # fmt: skip

    def _bias_by_sums(self) -> None:
        """Add the bias's numbers from its samples' gradients, sums of rows; units are no neighbours, and take pairs."""
        if self.order.unit is not None:
            self._pairs(weight=False, bias=True)
            return
        of_samples = self.grads.sum(1, keepdim=True, dtype=torch.float32) if self.length > 1 else self.grads
        ones = of_samples.new_ones(1).expand(self.samples, 1, 1)
        of_bias = Problem(ones, of_samples, self.order, self.norms, bias=False)
        of_bias.run()
        self.bias_gram, self.bias_norm = of_bias.gram, of_bias.norm
