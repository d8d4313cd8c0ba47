"""The oracle of parameter_norms: four sums a tensor, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def _four(w_KD: Tensor, grad_KD: Tensor | None, previous_KD: Tensor | None) -> Tensor:
    """Return float64 [K, 4]: ||w||, ||grad||, ||dw||, <w, dw> of each row."""
    w_KD = w_KD.double()
    nan_K = w_KD.new_full((w_KD.shape[0],), torch.nan)
    grad_norm, update_norm, dot = nan_K, nan_K, nan_K
    if grad_KD is not None:
        grad_norm = grad_KD.double().square().sum(1).sqrt()
    if previous_KD is not None:
        dw_KD = w_KD - previous_KD.double()
        update_norm = dw_KD.square().sum(1).sqrt()
        dot = (w_KD * dw_KD).sum(1)
    return torch.stack([w_KD.square().sum(1).sqrt(), grad_norm, update_norm, dot], 1)


def parameter_norms_reference(
    params: Sequence[Tensor], grads: Sequence[Tensor | None], previous: Sequence[Tensor | None], rows: int = -1
) -> tuple[Tensor, Tensor]:
    """Return (tensors float64 [P, 4], rows float64 [K, 4]); see `imbdyn.ops.parameter_norms`."""

    def four(i: int, count: int) -> Tensor:
        # Not reshape(count, -1): that size is undefined where there are no rows.
        shape = (count, params[i].numel() // max(count, 1))
        grad, old = grads[i], previous[i]
        return _four(
            params[i].reshape(shape),
            None if grad is None else grad.reshape(shape),
            None if old is None else old.reshape(shape),
        )

    device = params[0].device if params else None
    tensors_P4 = torch.zeros(len(params), 4, dtype=torch.float64, device=device)
    for i in range(len(params)):
        tensors_P4[i] = four(i, 1)[0]
    if rows < 0:
        return tensors_P4, tensors_P4.new_zeros(0, 4)
    return tensors_P4, four(rows, params[rows].shape[0])
