"""The base of all methods: what training does if nothing is done against imbalance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class Method:
    """Base of the methods: the fields are the keys of the section [method].

    A method overrides what it changes. `counts` are the training samples of each class, int64 [C], on the model's
    device; every class has one at least.
    """

    name: str

    def prepare(self, model: nn.Module, counts: Tensor) -> None:
        """Change the network before it is trained."""

    def order(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return the samples of one epoch in their order: int64 indices into `labels`, which are int64 [N]."""
        return torch.randperm(len(labels), generator=generator)

    def loss(self, logits: Tensor, labels: Tensor, counts: Tensor, epoch: int) -> Tensor:  # noqa: ARG002
        """Return the loss of a batch, a scalar.

        Args:
            logits: [N, C].
            labels: int64 [N].
            counts: int64 [C].
            epoch: counted from 1.
        """
        return F.cross_entropy(logits, labels)
