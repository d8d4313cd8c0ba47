"""Rare classes are drawn more often.

Class-balanced sampling as in Kang et al. 2020, arXiv 1910.09217: every class is as likely, and each of its samples.
(The rule "Resample" of LDAM's public code means this and does nothing: its sampler is never passed on.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from imbdyn.experiments.methods.method import Method


@dataclass(frozen=True, kw_only=True)
class Oversampling(Method):
    """`oversampling`: an epoch is N draws with replacement, sample i with probability 1 / (C n_{y_i})."""

    name: str = "oversampling"

    def order(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the samples of an epoch."""
        counts = torch.bincount(labels).double()
        return torch.multinomial(counts.reciprocal()[labels], len(labels), replacement=True, generator=generator)
