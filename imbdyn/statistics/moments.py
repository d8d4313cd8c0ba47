"""Merging class moments of two batches."""

from __future__ import annotations

from imbdyn.ops import ClassMoments


def merge(a: ClassMoments, b: ClassMoments) -> ClassMoments:
    """Return the moments of the union of two disjoint sets of rows, as if they had been read in one pass.

    mean = mean_a + d n_b / n and m2 = m2_a + m2_b + d^2 n_a n_b / n, with d = mean_b - mean_a and n = n_a + n_b.

    Source: Chan, Golub, LeVeque (1979).
    """
    count = a.count + b.count
    n_a, n_b, n = (c.to(a.mean.dtype)[:, None] for c in (a.count, b.count, count.clamp(min=1)))
    delta = b.mean - a.mean
    return ClassMoments(count, a.mean + delta * n_b / n, a.m2 + b.m2 + delta.square() * n_a * n_b / n)
