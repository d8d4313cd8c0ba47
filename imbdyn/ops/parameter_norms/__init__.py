"""Weight, gradient and update norms of many tensors, and of the rows of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from imbdyn.ops._gpu import offer
from imbdyn.ops._library import define, implement
from imbdyn.ops.parameter_norms.cpu import register as register_cpu
from imbdyn.ops.parameter_norms.reference import parameter_norms_reference


class ParameterNorms(NamedTuple):
    """Four float64 numbers a tensor, columns in this order: ||w||, ||grad||, ||dw||, <w, dw> with dw = w - previous."""

    tensors: Tensor
    """float64 [P, 4], one row a parameter; NaN where grad or previous was not given."""
    rows: Tensor
    """float64 [K, 4], the same for each row of the parameter named by `rows`; [0, 4] without one."""


def parameter_norms(
    params: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    previous: Sequence[Tensor | None],
    *,
    rows: int | None = None,
) -> ParameterNorms:
    """Measure ||w||, ||grad||, ||dw|| and <w, dw> of each tensor in one call.

    Each tensor is read once, as it lies in memory: contiguous or with its dimensions in another order (channels_last).
    Copied first are a parameter that has gaps or repeats, the parameter of `rows` if its rows are not contiguous, and a
    gradient or earlier value with other strides than its parameter. All sums are float64.

    On a GPU one launch reads the whole model, at the addresses in a table that is sent, without waiting, when they are
    others than in recent calls; a CUDA graph that captures a call reads these addresses when it is replayed.

    Args:
        params: P tensors w, float64, float32, bfloat16 or float16, as they are after the step.
        grads: P gradients or None, each shaped as its parameter; a dtype of their own is welcome.
        previous: P earlier values or None, likewise.
        rows: index of the parameter (the classifier's weight) that is also measured along its first dimension.

    Raises:
        ValueError: if the three sequences differ in length, a shape differs from its parameter's, `rows` is out of
            range or its parameter has no dimension.
    """
    if not len(params) == len(grads) == len(previous):
        raise ValueError(
            f"params, grads and previous need one length, got {len(params)}, {len(grads)} and {len(previous)}"
        )
    if rows is not None and not 0 <= rows < len(params):
        raise ValueError(f"rows must be in 0..{len(params) - 1}, got {rows}")
    if rows is not None and params[rows].dim() == 0:
        raise ValueError(f"rows must name a parameter that has rows, got {rows}, which is 0-dimensional")
    shapes = [w.shape for w in params]
    _check_shapes("grads", grads, shapes)
    _check_shapes("previous", previous, shapes)
    with torch.no_grad():
        return ParameterNorms(
            *_PARAMETER_NORMS(list(params), list(grads), list(previous), -1 if rows is None else rows)
        )


def _check_shapes(name: str, tensors: Sequence[Tensor | None], shapes: list[torch.Size]) -> None:
    """Raise ValueError naming the first of `tensors` that is not shaped as its parameter."""
    for i, (tensor, shape) in enumerate(zip(tensors, shapes, strict=True)):
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name}[{i}] must be shaped as its parameter, {tuple(shape)}, got {tuple(tensor.shape)}")


def _fake(
    params: list[Tensor],
    grads: list[Tensor | None],  # noqa: ARG001
    previous: list[Tensor | None],  # noqa: ARG001
    rows: int,
) -> tuple[Tensor, Tensor]:
    like = params[0] if params else torch.empty(0)
    num_rows = params[rows].shape[0] if rows >= 0 else 0
    return (
        like.new_empty((len(params), 4), dtype=torch.float64),
        like.new_empty((num_rows, 4), dtype=torch.float64),
    )


_PARAMETER_NORMS = define(
    "parameter_norms(Tensor[] params, Tensor?[] grads, Tensor?[] previous, int rows) -> (Tensor, Tensor)", _fake
)
implement("parameter_norms", "reference", "any", "plain torch, float64", parameter_norms_reference)
register_cpu()
for _name in ("cuda", "triton"):
    offer("parameter_norms", _name, {"parameter_norms": f"parameter_norms_{_name}"})
