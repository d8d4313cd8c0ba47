"""Weights by the effective number of samples.

Source: Cui et al. 2019, arXiv 1901.05555; weights as in its public code and LDAM's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from imbdyn.experiments.errors import require
from imbdyn.experiments.methods.method import Method


def effective_number_weights(counts: Tensor, beta: float) -> Tensor:
    """Return w_c = (1 - beta) / (1 - beta^n_c), scaled so that they sum to C: float64 [C].

    beta = 0 weighs all classes alike, beta -> 1 by 1 / n_c.
    """
    weights = (1.0 - beta) / (1.0 - torch.pow(torch.as_tensor(beta, dtype=torch.float64), counts.double()))
    return weights / weights.sum() * len(counts)


@dataclass(frozen=True, kw_only=True)
class ClassBalanced(Method):
    """`class_balanced`: cross-entropy with weights of classes, sum_i w_{y_i} l_i / sum_i w_{y_i} over a batch.

    The division by the batch's sum of weights is torch's and the published code's: it keeps the scale of the gradient,
    and makes the weight of a sample depend on the others of its batch.
    """

    name: str = "class_balanced"
    beta: float = 0.9999

    def __post_init__(self) -> None:
        require(0.0 <= self.beta < 1.0, "method.beta must be at least 0 and below 1", self.beta)

    def loss(self, logits: Tensor, labels: Tensor, counts: Tensor, epoch: int) -> Tensor:  # noqa: ARG002
        """Return the weighted mean."""
        return F.cross_entropy(logits, labels, effective_number_weights(counts, self.beta).to(logits))
