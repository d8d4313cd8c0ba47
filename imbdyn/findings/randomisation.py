"""Fisher's randomisation test: could the groups differ so much if it did not matter which classes are in which?

It assumes no distribution and is exact when the rare classes were drawn at random, as the built-in experiment does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

#: Up to this many assignments are all enumerated (two groups of eight classes are 12,870).
_EXACT = 20_000
_DRAWS = 9_999


def randomisation_p(rare: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """Return the one-sided p-values of mean(rare) - mean(others): of a difference so large, and of one so small.

    The shares of all assignments of the values to groups of these sizes whose difference is at least (at most) the one
    seen. Beyond 20,000 assignments, 9,999 drawn with a fixed seed stand for them, the one seen counted in.
    """
    values = np.asarray([*rare, *others], dtype=float)
    size = len(rare)
    sums = np.asarray([values[chosen].sum() for chosen in assignments(len(values), size)])
    # With fixed sizes the difference of means grows with the rare group's sum. Sums of the same numbers in another
    # order may differ in their last digits: such ties count.
    seen, slack = values[:size].sum(), 1e-9 * np.abs(values).sum()
    return float((sums >= seen - slack).mean()), float((sums <= seen + slack).mean())


def assignments(total: int, size: int) -> Iterator[NDArray[np.int64]]:
    """Yield the ways to choose `size` of `total` classes: all, or beyond 20,000 the first ones and 9,999 drawn."""
    if comb(total, size) <= _EXACT:
        yield from (np.asarray(chosen, dtype=np.int64) for chosen in combinations(range(total), size))
        return
    generator = np.random.default_rng(0)
    yield np.arange(size)
    yield from (generator.permutation(total)[:size] for _ in range(_DRAWS))
