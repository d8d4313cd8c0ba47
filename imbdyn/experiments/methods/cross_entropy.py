"""Plain cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass

from imbdyn.experiments.methods.method import Method


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(Method):
    """`cross_entropy`: nothing is done against imbalance."""

    name: str = "cross_entropy"
