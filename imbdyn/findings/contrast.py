"""How the values of the rare classes differ from those of the others.

The effect size is Cliff's delta: of all pairs of a rare and another class, the share in which the rare one's value is
larger minus the share in which it is smaller; 1 and -1 mean that the groups do not overlap. It needs no unit, no
distribution and no equal group sizes. The p-value is two-sided, twice the smaller one of the randomisation test. Of two
classes there is none: whichever is the rare one, they differ as much, so that it would always be 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from imbdyn.findings.groups import Groups
from imbdyn.findings.randomisation import randomisation_p

if TYPE_CHECKING:
    import pandas as pd

#: What `Contrast.delta` is, for `Finding.effect`.
DELTA = "Cliff's delta: share of pairs of a rare and another class where the rare one's is larger, minus smaller"


class Contrast(NamedTuple):
    """Two groups of classes by one measure."""

    rare: float
    """Mean over the rare classes that have a value."""
    others: float
    p_value: float | None
    delta: float


def contrast(by_class: Mapping[int, float], group: Groups) -> Contrast | None:
    """Compare the two groups; None if one of them has no value."""
    rare = [by_class[c] for c in group.rare if c in by_class]
    others = [by_class[c] for c in group.others if c in by_class]
    if not rare or not others:
        return None
    several = len(rare) + len(others) > 2
    p_value = min(1.0, 2 * min(randomisation_p(rare, others))) if several else None
    delta = np.sign(np.subtract.outer(np.asarray(rare), np.asarray(others))).mean()
    return Contrast(float(np.mean(rare)), float(np.mean(others)), p_value, float(delta))


def finite(values: pd.Series[Any]) -> dict[int, float]:
    """Return the values that are numbers, by the class_id that is their index."""
    return {int(c): float(value) for c, value in values.items() if np.isfinite(value)}  # type: ignore[call-overload]


def defined(value: float) -> float | None:
    """Return `value`, or None where it is NaN or infinite."""
    return float(value) if np.isfinite(value) else None
