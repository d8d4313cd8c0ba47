"""Spearman's rank correlation, with a test that assumes no distribution."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import permutations
from math import factorial
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

#: Up to this many orders are all enumerated (seven classes have 5,040).
_EXACT = 10_000
_DRAWS = 9_999


class RankCorrelation(NamedTuple):
    """Spearman's coefficient and its p-value."""

    rho: float
    p_value: float


def spearman(x: Sequence[float], y: Sequence[float]) -> RankCorrelation | None:
    """Return the correlation of the ranks of x and y, equal values having the mean of their ranks.

    The p-value is two-sided: the share of all orders of x whose coefficient is as far from 0 as the one seen; beyond
    10,000 orders, 9,999 drawn with a fixed seed stand for them, the one seen counted in. None where all values of x, or
    of y, are equal, and of two values, whose correlation is 1 or -1 whatever they are.
    """
    a, b = (np.asarray(pd.Series(values, dtype=float).rank() - (len(values) + 1) / 2) for values in (x, y))
    scale = np.sqrt((a @ a) * (b @ b))
    if len(a) < 3 or not scale > 0:
        return None
    seen = a @ b / scale
    products = np.asarray([order @ b for order in _orders(a)]) / scale
    return RankCorrelation(float(seen), float((np.abs(products) >= abs(seen) - 1e-9).mean()))


def _orders(a: NDArray[np.float64]) -> Iterable[NDArray[np.float64]]:
    if factorial(len(a)) <= _EXACT:
        return (np.asarray(order) for order in permutations(a))
    generator = np.random.default_rng(0)
    return [a, *(generator.permutation(a) for _ in range(_DRAWS))]
