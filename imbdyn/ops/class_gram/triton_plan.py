"""What one call of class_gram in Triton launches, as far as shapes say it: worked out once for each shape.

A network calls with the same shapes step after step, and to choose a way, its configurations and arguments anew would
take the host longer than the launches.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch

from imbdyn.ops._triton import Launch
from imbdyn.ops.class_gram.order import slots_of
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
from imbdyn.ops.class_gram.triton_convolution import ROWS, Geometry, Lies
from imbdyn.ops.class_gram.triton_gradients import rows_kernel, samples_kernel
from imbdyn.ops.class_gram.triton_pairs import pairs_kernel, within_kernel
from imbdyn.ops.class_gram.triton_slots import row_norms_kernel, slots_kernel

#: How float32 products are made that are to be exact: matrix units of AMD multiply float32 themselves.
_EXACT = "tf32x3" if torch.version.hip is None else "ieee"


def float32_precision() -> str:
    """Return how products of float32 are made, as `tl.dot` names it: torch's own setting decides."""
    return _EXACT if torch.get_float32_matmul_precision() == "highest" or torch.version.hip is not None else "tf32"


def precision_of(dtype: torch.dtype) -> str:
    """Return how products of a dtype are made."""
    return float32_precision() if dtype == torch.float32 else "ieee"


def _blocks(numbers: int, block: int) -> int:
    return -(-numbers // block)


class Call(NamedTuple):
    """Everything that the plan of a call follows from."""

    inputs: Lies
    grads: Lies
    samples: int
    length: int
    """Rows of a sample."""
    classes: int
    dtype: torch.dtype
    precision: str
    norms: bool
    """Whether sample norms are wanted."""
    bias: bool
    """Whether a bias's numbers are wanted too."""
    units: bool
    """Whether rows of a sample are several samples in the class order."""
    device: torch.device
    geometry: Geometry = ROWS
    forced: Forced = FREE

    @property
    def columns(self) -> int:
        """Columns of the class gradients."""
        return self.geometry.columns or self.inputs.columns

    @property
    def outputs(self) -> int:
        """Rows of the class gradients."""
        return self.grads.columns

    def index_of(self, lies: Lies) -> tuple[tuple[int, int, int] | None, int]:
        """Return which index of rows in class order is needed (None: that of samples), and its stride."""
        if self.length == 1:
            return None, lies.sample
        if lies.sample == self.length * lies.row:
            return (self.length, 1, self.length), lies.row
        return (lies.sample, lies.row, self.length), 1


class Part(NamedTuple):
    """Some outputs of the class gradients, as many as scratch memory holds at once."""

    first: int
    gradients: Launch
    products: Launch


class Direct(NamedTuple):
    """The direct way."""

    by_sample: bool
    add: bool
    """Whether chunks are added to the gradients of their classes, which are to be 0 before."""
    chunk: int
    """Samples of a chunk at most."""
    scratch: int
    """float32 numbers of gradients, an even number of them."""
    parts: tuple[Part, ...]
    inputs_index: tuple[int, int, int] | None
    grads_index: tuple[int, int, int] | None
    row_norms: Launch | None
    within: Launch | None


class Plan(NamedTuple):
    """What is launched: `pairs`, or what `direct` says, and then `of_bias`."""

    pairs: Launch | None = None
    direct: Direct | None = None
    of_bias: Launch | None = None
    """Of pairs, for the bias alone: of the sums of each sample's rows, or of the rows themselves if there are units."""


@lru_cache(4096)
def plan_of(call: Call) -> Plan:
    """Return the plan of a call."""
    samples, length, outputs = call.samples, call.length, call.outputs
    if not samples * length * outputs:
        return Plan()
    if not call.columns or (call.geometry is not ROWS and not math.prod(call.geometry.numbers[2:4])):
        return Plan(of_bias=pairs_of(call, weight=False, bias=True) if call.bias else None)
    way = call.forced.way
    if way is None:
        shapes = (samples, length, call.columns, outputs, call.classes)
        way = "gram" if gram_is_cheaper(*shapes, call.dtype, call.precision) else "direct"
    if way == "gram":
        return Plan(pairs=pairs_of(call, weight=True, bias=call.bias))
    of_bias = None
    if call.bias and call.units:
        of_bias = pairs_of(call, weight=False, bias=True)
    elif call.bias:
        dtype = torch.float32 if length > 1 else call.dtype
        lies = Lies(outputs, outputs, outputs, 16 // dtype.itemsize) if length > 1 else call.grads
        sums = Call(
            ONE, lies, samples, 1, call.classes, dtype, precision_of(dtype), call.norms, True, False, call.device
        )
        if gram_is_cheaper(samples, 1, 1, outputs, call.classes, dtype, sums.precision):
            of_bias = pairs_of(sums, weight=False, bias=True)
    return Plan(direct=direct_of(call), of_bias=of_bias)


#: Inputs of a bias.
ONE = Lies(0, 0, 1, 1)


def pairs_of(call: Call, *, weight: bool, bias: bool) -> Launch:
    """Return the launch of the gram way; its tensors are those of `Problem`."""
    a, d, rows = call.inputs, call.grads, call.samples * call.length
    block, columns, warps, stages = call.forced.pairs or pairs_config(rows, call.dtype, call.precision)
    numbers = (
        call.classes, call.length, a.columns, a.sample, a.row, d.columns, d.sample, d.row, weight, bias, call.norms,
        call.units, a.columns == 1, block, columns, a.aligned, d.aligned, call.precision, _EXACT,
    )  # fmt: skip
    return Launch(pairs_kernel, (_blocks(rows, block),) * 2, numbers, num_warps=warps, num_stages=stages)


def direct_of(call: Call) -> Direct:
    """Return the plan of the direct way."""
    samples, outputs, columns, forced = call.samples, call.outputs, call.columns, call.forced
    convolution = call.geometry is not ROWS
    by = Norms.NONE
    if call.norms:
        by = forced.norms or norms_of(samples, call.length, columns, outputs, call.units, convolution)
    by_sample = convolution or by in (Norms.BY_SLOT, Norms.IN_LOOP)
    block_o, block_i, *_ = config = forced.gradient or gradient_config(
        call.length, columns, outputs, call.dtype, by, by_sample, has_large_blocks(call.device), call.geometry.channels
    )
    ranks = min(samples, call.classes)
    add = by is Norms.BY_SLOT or adds_to_classes(ranks, columns, outputs)
    size = 1 if by is Norms.BY_SLOT else chunk_size(samples, columns, outputs, block_o, block_i, forced.parts)
    chunks = slots_of(samples, call.classes, size)
    slots = ranks if add else chunks
    at_once = max(block_o, SLOT_BYTES // (4 * slots * columns) // block_o * block_o)
    at_once = outputs if add else min(outputs, at_once)
    (inputs_index, x_row), (grads_index, d_row) = call.index_of(call.inputs), call.index_of(call.grads)
    parts = []
    for first in range(0, outputs, at_once):
        some = min(at_once, outputs - first)
        grid = (chunks * _blocks(some, block_o) * _blocks(columns, block_i),)
        numbers = (
            _by_sample(call, some, by, add, config) if by_sample else _by_row(call, some, x_row, d_row, add, config)
        )
        gradients = Launch(
            samples_kernel if by_sample else rows_kernel, grid, numbers, num_warps=config[3], num_stages=config[4]
        )
        parts.append(Part(first, gradients, _products(call, slots, some * columns)))
    row_norms = None
    if by is Norms.BY_ROW:
        numbers = (columns, x_row, outputs, d_row, 16, 256, call.inputs.aligned, call.grads.aligned)
        row_norms = Launch(row_norms_kernel, (_blocks(samples, 16),), numbers, num_warps=4)
    within = _within(call) if by is Norms.WITHIN else None
    scratch = -(-slots * at_once * columns // 2) * 2
    return Direct(by_sample, add, size, scratch, tuple(parts), inputs_index, grads_index, row_norms, within)


def _by_row(call: Call, outputs: int, x_row: int, d_row: int, add: bool, config: tuple[int, ...]) -> tuple[object, ...]:
    return (
        call.length, call.columns, x_row, outputs, d_row, add, *config[:3], call.inputs.aligned,
        math.gcd(call.grads.aligned, outputs), call.precision,
    )  # fmt: skip


def _by_sample(call: Call, outputs: int, by: Norms, add: bool, config: tuple[int, ...]) -> tuple[object, ...]:
    a, d, g = call.inputs, call.grads, call.geometry
    convolution = g is not ROWS
    aligned = math.gcd(a.aligned, *g.numbers[:2]) if convolution else a.aligned
    return (
        call.length, call.columns, a.sample, a.row, outputs, d.sample, d.row, *g.numbers, convolution,
        convolution and g.channels % config[1] == 0, g.channels, g.taps_x, g.out_x, by is Norms.BY_SLOT,
        by is not Norms.NONE, add, *config[:3], aligned, math.gcd(d.aligned, outputs), call.precision,
    )  # fmt: skip


def _products(call: Call, slots: int, size: int) -> Launch:
    """Return the launch of the inner products between slots of so many numbers."""
    block_s, block, lanes, stages = call.forced.slots or slots_config(slots)
    blocks, step = _blocks(slots, block_s), block * lanes
    part = max(4 * step, _blocks(_blocks(size, max(1, 1056 // (blocks * (blocks + 1)))), step) * step)
    numbers = (call.classes, size, part, blocks == 1, lanes, block_s, block, _EXACT)
    return Launch(slots_kernel, (_blocks(size, part), blocks, blocks), numbers, num_warps=4, num_stages=stages)


def _within(call: Call) -> Launch:
    block, columns, warps, stages = call.forced.within or within_config(call.dtype)
    a, d = call.inputs, call.grads
    numbers = (
        call.length, a.columns, a.sample, a.row, d.columns, d.sample, d.row, True, False, call.units, a.columns == 1,
        block, columns, a.aligned, d.aligned, call.precision,
    )  # fmt: skip
    grid = (_blocks(call.samples * call.length, block),)
    return Launch(within_kernel, grid, numbers, num_warps=warps, num_stages=stages)
