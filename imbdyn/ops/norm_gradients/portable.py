"""norm_gradients in plain torch, on any device: torch's own statistics, in the accumulator's dtype."""

from __future__ import annotations

import torch
from torch import Tensor


def accumulator_dtype(input: Tensor, grad_output: Tensor) -> torch.dtype:
    """Return the dtype of the results: float64 if either is float64, else float32."""
    return torch.float64 if torch.float64 in (input.dtype, grad_output.dtype) else torch.float32


def norm_gradients_portable(
    input: Tensor,
    grad_output: Tensor,
    num_groups: int,
    across_units: bool,
    mean: Tensor | None,
    variance: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Return (weight [U, C], bias [U, C]); see `imbdyn.ops.norm_gradients`."""
    dtype = accumulator_dtype(input, grad_output)
    x, dy = input.to(dtype), grad_output.to(dtype)
    if not x.numel():
        return x.new_zeros(x.shape[:2]), x.new_zeros(x.shape[:2])
    if mean is not None and variance is not None:
        xhat = (x - mean.to(dtype)[:, None]) * (variance.to(dtype)[:, None] + eps).rsqrt()
    else:
        grouped = x.unflatten(1, (num_groups, -1))
        together = (0, 2, 3) if across_units else (2, 3)
        of_group, mean_of_group = torch.var_mean(grouped, together, correction=0, keepdim=True)
        xhat = ((grouped - mean_of_group) * (of_group + eps).rsqrt()).flatten(1, 2)
    return (dy * xhat).sum(2), dy.sum(2)


def norm_gradients_rows_portable(
    input: Tensor, grad_output: Tensor, centred: bool, eps: float
) -> tuple[Tensor, Tensor]:
    """Return (weight [U, D], bias [U, D]); see `imbdyn.ops.norm_gradients_rows`."""
    dtype = accumulator_dtype(input, grad_output)
    x, dy = input.to(dtype), grad_output.to(dtype)
    if not x.numel():
        return x.new_zeros(x.shape[0], x.shape[2]), x.new_zeros(x.shape[0], x.shape[2])
    if centred:
        variance, mean = torch.var_mean(x, 2, correction=0, keepdim=True)
        xhat = (x - mean) * (variance + eps).rsqrt()
    else:
        xhat = x * (x.square().mean(2, keepdim=True) + eps).rsqrt()
    return (dy * xhat).sum(1), dy.sum(1)
