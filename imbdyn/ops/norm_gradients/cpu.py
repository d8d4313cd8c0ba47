"""norm_gradients in C++: one read of the input and of its result's gradient (csrc/cpu/norm_gradients.h)."""

from __future__ import annotations

import torch
from torch import Tensor

from imbdyn.ops import _extension
from imbdyn.ops._library import implement, unavailable
from imbdyn.ops._library import register as register_second
from imbdyn.ops.norm_gradients.portable import accumulator_dtype


def register() -> None:
    """Let the compiled kernels serve CPU tensors, or record why they cannot."""
    _C = _extension.kernels
    if _C is None:
        unavailable("norm_gradients", "cpu", "cpu", "C++", _extension.why_missing)
        return
    implement("norm_gradients", "cpu", "cpu", f"C++, {_C.active_isa()}", _norm_gradients_cpu)
    register_second("norm_gradients_rows", "cpu", _norm_gradients_rows_cpu)


def _norm_gradients_cpu(
    input: Tensor,
    grad_output: Tensor,
    num_groups: int,
    across_units: bool,
    mean: Tensor | None,
    variance: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor]:
    _C = _extension.kernels
    assert _C is not None
    types = _types(input, grad_output)
    if input.stride(1) == grad_output.stride(1) == 1 and input.shape[1] > 1:  # channels_last: as it lies
        x, dy = input, grad_output
    else:
        x, dy = (t if t.stride(2) == 1 else t.contiguous() for t in (input, grad_output))
        if not x.stride(2) == dy.stride(2) == 1:  # a single place, which has any stride
            x, dy = (t.as_strided(t.shape, (*t.stride()[:2], 1)) for t in (x, dy))
    given = [None if t is None else t.to(torch.float64).contiguous() for t in (mean, variance)]
    weight, bias = _results(x, dy, x.shape[1])
    _C.norm_gradients(
        x.shape,
        x.data_ptr(),
        types[0],
        x.stride(),
        dy.data_ptr(),
        types[1],
        dy.stride(),
        num_groups,
        across_units,
        *(0 if t is None else t.data_ptr() for t in given),
        eps,
        weight.data_ptr(),
        bias.data_ptr(),
        torch.get_num_threads(),
    )
    return weight, bias


def _norm_gradients_rows_cpu(input: Tensor, grad_output: Tensor, centred: bool, eps: float) -> tuple[Tensor, Tensor]:
    _C = _extension.kernels
    assert _C is not None
    types = _types(input, grad_output)
    x, dy = (t if t.stride(2) == 1 or t.shape[2] == 1 else t.contiguous() for t in (input, grad_output))
    weight, bias = _results(x, dy, x.shape[2])
    _C.norm_gradients_rows(
        x.shape,
        x.data_ptr(),
        types[0],
        x.stride(),
        dy.data_ptr(),
        types[1],
        dy.stride(),
        centred,
        eps,
        weight.data_ptr(),
        bias.data_ptr(),
        torch.get_num_threads(),
    )
    return weight, bias


def _types(input: Tensor, grad_output: Tensor) -> tuple[int, int]:
    return (
        _extension.element_type("input", input.dtype),
        _extension.element_type("grad_output", grad_output.dtype),
    )


def _results(x: Tensor, dy: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    dtype = accumulator_dtype(x, dy)
    return torch.empty(x.shape[0], columns, dtype=dtype), torch.empty(x.shape[0], columns, dtype=dtype)
