"""Lets Triton's interpreter compute as an NVIDIA GPU does: IMBDYN_GPU_ARITHMETIC=1 (tests/conftest.py).

What a GPU may do is documented as a bound on an error. Here each such result is off by as many units in its last place
as a hash of its operands says, up to the bound: in any order of calls the same operands give the same result. What each
operation becomes was read in the PTX that Triton makes for sm_90:

- float32 `/`: div.full, 2 units (PTX ISA, "div").
- exp: ex2.approx of the rounded x log2(e), 2 units, exact at 0 (PTX ISA, "ex2"); subnormal results are 0.
- log: __nv_logf, 1 unit, exact at 1 (CUDA C++ Programming Guide, "Mathematical Functions"). sqrt: sqrt.approx, 1 unit.
- a float32 product that is added to something: one rounding (fma).
- min and max: NaN only if both are, unless propagate_nan asks otherwise.
- tl.dot: operands of TF32 lose their low 13 bits; tf32x3 adds two products of high and low parts to that of high ones,
  and leaves out what is NaN in them. The sums of 8 products (16 of 2 bytes) are exact and then cut to float32, to
  which the next 8 are added (Fasi, Higham, Mikaitis and Pranesh 2021, "Numerical behavior of NVIDIA tensor cores").
- Sums over an axis go by halves, after the elements were mixed; programs run, and atomics add, in another order each
  time. There are 132 multiprocessors with large shared memory, which decide how work is divided.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

#: Multiprocessors of an H100.
MULTIPROCESSORS = 132

_LOG2_E = np.float32(1.4426950408889634)
_order = random.Random(0)


def _off(result: Array, units: int, *operands: Array) -> Array:
    """Return float32 results, each off by up to `units` in the last place, as its operands' bits say."""
    mixed = np.zeros(result.shape, np.uint32)
    for operand in operands:
        mixed = (mixed ^ np.ascontiguousarray(operand, np.float32).view(np.uint32)) * np.uint32(0x9E3779B1)
        mixed ^= mixed >> np.uint32(15)
    steps = (mixed % np.uint32(2 * units + 1)).astype(np.int32) - units
    moved = (np.ascontiguousarray(result, np.float32).view(np.int32) + steps).view(np.float32)
    return np.where(np.isfinite(result) & (np.abs(result) >= np.finfo(np.float32).tiny), moved, result)


def divide(a: Array, b: Array) -> Array:
    """Return a / b; of float32 by div.full."""
    exact = np.divide(a, b)
    return _off(exact, 2, *np.broadcast_arrays(a, b)) if exact.dtype == np.float32 else exact


def exponential(x: Array) -> Array:
    """Return exp(x) by ex2.approx.ftz."""
    if x.dtype != np.float32:
        return np.exp(x)
    power = (x * _LOG2_E).astype(np.float32)
    power = np.where(np.abs(power) < np.finfo(np.float32).tiny, np.float32(0), power)
    result = np.exp2(power.astype(np.float64)).astype(np.float32)
    result = np.where(power == 0, np.float32(1), _off(result, 2, power))
    return np.where(result < np.finfo(np.float32).tiny, np.float32(0), result)


def logarithm(x: Array) -> Array:
    """Return log(x) by __nv_logf."""
    exact = np.log(x.astype(np.float64))
    return _off(exact.astype(np.float32), 1, x) if x.dtype == np.float32 else exact


def square_root(x: Array) -> Array:
    """Return the square root by sqrt.approx."""
    exact = np.sqrt(x)
    return _off(exact, 1, x) if x.dtype == np.float32 else exact


def fused(a: Array, b: Array, c: Array) -> Array:
    """Return float32 a b + c, rounded once."""
    return (a.astype(np.float64) * b + c).astype(np.float32)


def _cut(a: Array, bits: int) -> Array:
    """Return float32 without its low bits."""
    return (np.ascontiguousarray(a).view(np.uint32) & np.uint32(0xFFFFFFFF << bits & 0xFFFFFFFF)).view(np.float32)


def _to_tf32(a: Array) -> Array:
    """Return float32 rounded to TF32, halves away from 0 (cvt.rna.tf32.f32)."""
    bits = np.ascontiguousarray(a).view(np.uint32)
    rounded = _cut((bits + np.uint32(0x1000)).view(np.float32), 13)
    return np.where(np.isfinite(a), rounded, a)


def _toward_zero(a: Array) -> Array:
    """Return float64 as float32, cut."""
    nearest = a.astype(np.float32)
    return np.where(
        np.isfinite(nearest) & (np.abs(nearest.astype(np.float64)) > np.abs(a)),
        np.nextafter(nearest, np.float32(0)),
        nearest,
    )


def _multiply(a: Array, b: Array, sums: Array, at_once: int) -> Array:
    a, b = a.astype(np.float64), b.astype(np.float64)
    for first in range(0, a.shape[-1], at_once):
        some = slice(first, first + at_once)
        sums = _toward_zero(np.matmul(a[..., some], b[..., some, :]) + sums)
    return sums


def dot(a: Array, b: Array, sums: Array, precision: str) -> Array:
    """Return a b + sums as tensor cores do."""
    if sums.dtype != np.float32:
        return np.matmul(a, b, dtype=sums.dtype) + sums
    if a.dtype != np.float32 or precision == "IEEE":  # imbdyn asks float32 for it only where bfloat16 was converted
        return _multiply(a, b, sums, 16)
    if precision == "TF32":
        return _multiply(_cut(a, 13), _cut(b, 13), sums, 8)
    assert precision == "TF32x3"
    high_a, high_b = _to_tf32(a), _to_tf32(b)
    rest = _multiply(_cut(a - high_a, 13), high_b, np.zeros_like(sums), 8)
    rest = _multiply(high_a, _cut(b - high_b, 13), rest, 8)
    return _multiply(high_a, high_b, np.where(np.isnan(rest), np.float32(0), rest), 8) + sums


def total(a: Array, axis: int | None) -> Array:
    """Return the sum over an axis by halves, of mixed elements."""
    if axis is None:
        a, axis = a.reshape(-1), 0
    a = np.moveaxis(a, axis, 0)
    a = a[np.random.default_rng(len(a)).permutation(len(a))]
    while len(a) > 1:
        half = len(a) // 2
        a = np.concatenate([a[:half] + a[half : 2 * half], a[2 * half :]])
    return a[0]


def install() -> None:
    """Change Triton's interpreter of this process; before the modules of kernels are imported."""
    from triton.runtime import interpreter

    _change_builder(interpreter)
    _change_sums(interpreter)
    _change_order(interpreter)
    _be_large()


def _change_builder(interpreter: Any) -> None:
    builder, handle = interpreter.InterpreterBuilder, interpreter.TensorHandle
    of_arrays: dict[str, Callable[..., Array]] = {
        "create_fdiv": divide,
        "create_exp": exponential,
        "create_log": logarithm,
        "create_sqrt": square_root,
        "create_maxnumf": np.fmax,
        "create_minnumf": np.fmin,
    }
    for name, function in of_arrays.items():

        def create(self: Any, *args: Any, function: Callable[..., Array] = function) -> Any:  # noqa: ARG001
            return handle(function(*(arg.data for arg in args)), args[0].dtype.scalar)

        setattr(builder, name, create)
    multiply, add, subtract = builder.create_fmul, builder.create_fadd, builder.create_fsub

    def create_fmul(self: Any, a: Any, b: Any) -> Any:
        result = multiply(self, a, b)
        if result.data.dtype == np.float32:
            result.set_attr("factors", np.broadcast_arrays(a.data, b.data))
        return result

    def create_fadd(self: Any, a: Any, b: Any) -> Any:
        for one, other in ((a, b), (b, a)):
            if "factors" in one.attr:
                return handle(fused(*one.attr["factors"], other.data), a.dtype.scalar)
        return add(self, a, b)

    def create_fsub(self: Any, a: Any, b: Any) -> Any:
        if "factors" in a.attr:
            return handle(fused(*a.attr["factors"], -b.data), a.dtype.scalar)
        if "factors" in b.attr:
            x, y = b.attr["factors"]
            return handle(fused(-x, y, a.data), a.dtype.scalar)
        return subtract(self, a, b)

    def create_dot(self: Any, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: Any) -> Any:  # noqa: ARG001
        return handle(dot(a.data, b.data, d.data, input_precision.name), d.dtype.scalar)

    atomic = builder.create_atomic_rmw

    def create_atomic_rmw(self: Any, op: Any, ptr: Any, val: Any, mask: Any, sem: Any, scope: Any) -> Any:
        arrays = np.broadcast_arrays(ptr.data, val.data, mask.data)
        order = np.array(_order.sample(range(arrays[0].size), arrays[0].size))
        ptr, val, mask = (
            handle(np.ascontiguousarray(array.reshape(-1)[order]), one.dtype)
            for array, one in zip(arrays, (ptr, val, mask), strict=True)
        )
        before = atomic(self, op, ptr, val, mask, sem, scope)
        data = np.empty_like(before.data)
        data[order] = before.data
        return handle(data.reshape(arrays[0].shape), before.dtype)

    for create in (create_fmul, create_fadd, create_fsub, create_dot, create_atomic_rmw):
        setattr(builder, create.__name__, create)


def _change_sums(interpreter: Any) -> None:
    reduce = interpreter.ReduceOps
    plain = reduce.sum

    def of_axis(self: Any, input: Any) -> Any:
        if not input.dtype.is_floating():
            return plain(self, input)
        data = total(input.handle.data, self.axis)
        if self.keep_dims:
            data = np.expand_dims(data, tuple(range(input.handle.data.ndim)) if self.axis is None else self.axis)
        return self.to_tensor(data, input.dtype)

    reduce.sum = of_axis


class _AnyOrder:
    """A grid whose programs run in another order each time."""

    def __init__(self, *sizes: int) -> None:
        self.places = list(product(*map(range, sizes)))
        _order.shuffle(self.places)


def _change_order(interpreter: Any) -> None:
    builder = interpreter.InterpreterBuilder
    set_dim, set_idx = builder.set_grid_dim, builder.set_grid_idx

    def set_grid_dim(self: Any, *sizes: int) -> None:
        assert max(sizes[1:]) <= 65535, f"a GPU has no grid {sizes}"
        set_dim(self, *sizes)
        self.in_any_order = iter(_AnyOrder(*sizes).places)

    def set_grid_idx(self: Any, x: int, y: int, z: int) -> None:  # noqa: ARG001
        set_idx(self, *next(self.in_any_order))

    builder.set_grid_dim, builder.set_grid_idx = set_grid_dim, set_grid_idx


def _be_large() -> None:
    from imbdyn.ops import _triton
    from imbdyn.ops.class_gram import triton_choice

    _triton.multiprocessors = lambda device: MULTIPROCESSORS  # noqa: ARG005
    triton_choice.has_large_blocks = lambda device: True  # type: ignore[assignment]  # noqa: ARG005
