"""Focal loss: samples that are known already count less.

Source: Lin et al. 2017, arXiv 1708.02002, with softmax in place of sigmoids, as in LDAM's code.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from imbdyn.experiments.errors import require
from imbdyn.experiments.methods.method import Method


@dataclass(frozen=True, kw_only=True)
class Focal(Method):
    """`focal`: mean over i of -(1 - p_i)^gamma log p_i, p_i the probability of sample i's class.

    Without weights of classes: with them LDAM's code takes exp(-w l) for p.
    """

    name: str = "focal"
    gamma: float = 1.0

    def __post_init__(self) -> None:
        require(self.gamma >= 0.0, "method.gamma must be at least 0", self.gamma)

    def loss(self, logits: Tensor, labels: Tensor, counts: Tensor, epoch: int) -> Tensor:  # noqa: ARG002
        """Return the mean."""
        log_p = F.log_softmax(logits, dim=1).gather(1, labels[:, None])[:, 0]
        # -expm1: 1 - p is exact where p is almost 1. At p = 1 the power's own derivative would be infinite or NaN.
        rest = (-log_p.expm1()).clamp_min(1e-12 if self.gamma else 0.0)
        return -(rest.pow(self.gamma) * log_p).mean()
