"""Fisher's randomisation test: could the groups differ so much if it did not matter which classes are in which?

It assumes no distribution and is exact when the rare classes were drawn at random, as the built-in experiment does.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np

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
    if comb(len(values), size) <= _EXACT:
        sums = np.asarray([values[list(chosen)].sum() for chosen in combinations(range(len(values)), size)])
    else:
        generator = np.random.default_rng(0)
        drawn = [generator.permutation(values)[:size].sum() for _ in range(_DRAWS)]
        sums = np.asarray([values[:size].sum(), *drawn])
    # With fixed sizes the difference of means grows with the rare group's sum. Sums of the same numbers in another
    # order may differ in their last digits: such ties count.
    seen, slack = values[:size].sum(), 1e-9 * np.abs(values).sum()
    return float((sums >= seen - slack).mean()), float((sums <= seen + slack).mean())
