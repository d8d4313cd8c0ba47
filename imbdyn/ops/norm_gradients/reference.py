"""The oracle of norm_gradients: the formula, in float64."""

from __future__ import annotations

from torch import Tensor


def norm_gradients_reference(
    input: Tensor,
    grad_output: Tensor,
    num_groups: int,
    across_units: bool,
    mean: Tensor | None,
    variance: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Return (weight float64 [U, C], bias float64 [U, C]); see `imbdyn.ops.norm_gradients`."""
    x_UCP, dy_UCP = input.double(), grad_output.double()
    if mean is not None and variance is not None:
        mean_1C1, variance_1C1 = mean.double()[:, None], variance.double()[:, None]
        xhat_UCP = (x_UCP - mean_1C1) / (variance_1C1 + eps).sqrt()
    else:
        x_UGQP = x_UCP.unflatten(1, (num_groups, -1))
        together = (0, 2, 3) if across_units else (2, 3)
        centred = x_UGQP - x_UGQP.mean(together, keepdim=True)
        xhat_UCP = (centred / (centred.square().mean(together, keepdim=True) + eps).sqrt()).flatten(1, 2)
    return (dy_UCP * xhat_UCP).sum(2), dy_UCP.sum(2)


def norm_gradients_rows_reference(
    input: Tensor, grad_output: Tensor, centred: bool, eps: float
) -> tuple[Tensor, Tensor]:
    """Return (weight float64 [U, D], bias float64 [U, D]); see `imbdyn.ops.norm_gradients_rows`."""
    x_ULD, dy_ULD = input.double(), grad_output.double()
    if centred:
        x_ULD = x_ULD - x_ULD.mean(2, keepdim=True)
    xhat_ULD = x_ULD / (x_ULD.square().mean(2, keepdim=True) + eps).sqrt()
    return (dy_ULD * xhat_ULD).sum(1), dy_ULD.sum(1)
