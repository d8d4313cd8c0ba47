"""95% intervals of proportions and of sums and differences of them.

Wilson's score interval (1927) holds for few samples and for proportions of 0 and 1, where the normal approximation has
no width at all. Linear combinations take its limits by MOVER, the method of variance estimates recovery (Zou and
Donner 2008), of which Newcombe's interval of a difference (1998) is the case of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

#: 97.5% quantile of the standard normal distribution.
Z_95 = 1.959963984540054


class Interval(NamedTuple):
    """An estimate with its 95% limits."""

    value: float
    lower: float
    upper: float


def wilson(proportion: float, count: float) -> Interval:
    """Return Wilson's interval of a `proportion` seen on `count` > 0 samples.

    centre = (p + z^2 / 2n) / (1 + z^2 / n), half width = z sqrt(p (1 - p) / n + z^2 / 4n^2) / (1 + z^2 / n).
    """
    z2_n = Z_95**2 / count
    centre = (proportion + z2_n / 2) / (1 + z2_n)
    half = Z_95 * sqrt(proportion * (1 - proportion) / count + z2_n / (4 * count)) / (1 + z2_n)
    return Interval(proportion, min(centre - half, proportion), max(centre + half, proportion))


def of_some(proportion: float, count: int, total: int) -> Interval:
    """Return the interval of the proportion of `total` > 0 samples, as seen on `count` > 0 of them.

    Wilson's, with the variance p (1 - p) / n * (N - n) / (N - 1) of a sample without replacement; of all N it has no
    width.
    """
    if count >= total:
        return Interval(proportion, proportion, proportion)
    return wilson(proportion, count * (total - 1) / (total - count))


def combine(weights: Sequence[float], terms: Sequence[Interval]) -> Interval:
    """Return the interval of sum_i weights[i] * terms[i] of independent terms, by MOVER.

    Lower limit = value - sqrt(sum_i (w_i p_i - min(w_i l_i, w_i u_i))^2), the upper one alike with max. Terms that are
    positively correlated where their weights differ in sign (two networks on the same test samples) make it too wide,
    never too narrow.
    """
    value = below = above = 0.0
    for weight, term in zip(weights, terms, strict=True):
        ends = weight * term.lower, weight * term.upper
        value += weight * term.value
        below += (weight * term.value - min(ends)) ** 2
        above += (max(ends) - weight * term.value) ** 2
    return Interval(value, value - sqrt(below), value + sqrt(above))
