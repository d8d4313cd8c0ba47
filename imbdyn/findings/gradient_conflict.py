"""Gradient conflict: the gradients of a rare and of another class point against each other.

Definition. Two classes are in conflict in a sampled step if cos(G_a, G_b) < 0, over all covered parameters. The measure
is the share of conflicts among the pairs of a rare and another class, over all sampled steps; the null is that among
the pairs of two other classes. As groups, R and O are the sums of G_c over the rare and over the other classes, and
cos(R, O) follows from the norms and cosines of the classes.

Read as a stream, since the pairs of many classes are many.

Source: Yu et al. 2020, arXiv 2001.06782 (PCGrad): conflict iff cos < 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imbdyn.findings.finding import Finding
from imbdyn.findings.groups import Groups, groups, one_group
from imbdyn.findings.rows import WHOLE_NETWORK, longest_run, network_gradients

if TYPE_CHECKING:
    from imbdyn.trace import Trace

Floats = NDArray[np.float64]


def gradient_conflict(trace: Trace) -> Finding:
    """Measure how often rare and other classes are in conflict."""
    group = groups(trace)
    found = Finding(
        name="gradient_conflict",
        claim="The gradients of rare classes point against those of the others.",
        unit="share of pairs of a rare and another class in conflict",
        compared_with="pairs of two other classes",
        effect="mean cosine of a rare and another class minus that of two others",
    )
    missing = one_group(group)
    if missing is not None:
        return replace(found, sentence=missing)
    sums = pair_sums(trace, group)
    pairs, conflicts, cosines = (part.sum(0) for part in (sums.pairs, sums.conflicts, sums.cosines))
    if not pairs[_ACROSS]:
        return replace(found, sentence="No sampled step has gradients of a rare and another class.")
    share, mean = conflicts / np.maximum(pairs, 1), cosines / np.maximum(pairs, 1)
    has_others = pairs[_OTHERS] > 0
    cos = sums.group_cosine()
    others = f", {share[_OTHERS]:.0%} of two others" if has_others else ""
    return replace(
        found,
        value=float(share[_ACROSS]),
        null=float(share[_OTHERS]) if has_others else None,
        effect_size=float(mean[_ACROSS] - mean[_OTHERS]) if has_others else None,
        steps=longest_run(pd.Series(cos < 0, index=sums.steps)),
        sentence=(
            f"{share[_ACROSS]:.0%} of pairs of a rare and another class are in conflict{others}; as groups in "
            f"{int((cos < 0).sum())} of {np.isfinite(cos).sum()} steps."
        ),
    )


#: A pair's kind is the number of its classes that are rare.
_OTHERS, _ACROSS, _RARE = 0, 1, 2


@dataclass(frozen=True)
class PairSums:
    """Sums over the pairs of classes with a cosine, by sampled step and kind of pair, each [S, 3]."""

    steps: NDArray[np.int64]
    pairs: Floats
    conflicts: Floats
    cosines: Floats
    products: Floats
    """Of <G_a, G_b>."""
    squares: Floats
    """[S, 2], of ||G_c||^2 over the others and over the rare classes."""

    def group_cosine(self) -> Floats:
        """Return cos(R, O) by step, NaN where one of them is 0."""
        others_sq = self.squares[:, 0] + 2 * self.products[:, _OTHERS]
        rare_sq = self.squares[:, 1] + 2 * self.products[:, _RARE]
        with np.errstate(divide="ignore", invalid="ignore"):
            cos = self.products[:, _ACROSS] / np.sqrt(np.maximum(others_sq, 0) * np.maximum(rare_sq, 0))
        return np.where(np.isfinite(cos), cos, np.nan)


def pair_sums(trace: Trace, group: Groups) -> PairSums:
    """Add up the pairs of the whole network's class gradients."""
    import pyarrow.dataset as ds

    gradients = network_gradients(trace)
    steps = np.unique(gradients["step"].to_numpy())
    classes = trace.run["num_classes"]
    is_rare = np.zeros(classes, dtype=np.int64)
    is_rare[group.rare] = 1
    norm = np.zeros((len(steps), classes))
    norm[np.searchsorted(steps, gradients["step"]), gradients["class_id"]] = gradients["grad_norm"].fillna(0.0)
    squares = np.stack([(norm[:, is_rare == kind] ** 2).sum(1) for kind in (0, 1)], axis=1)
    sums = np.zeros((4, len(steps) * 3))
    whole = ds.field("parameter") == WHOLE_NETWORK
    for rows in trace.batches("class_gradient_pairs", ["step", "class_a", "class_b", "grad_cos"], whole):
        rows = rows.filter(ds.field("grad_cos").is_valid())
        step, a, b, cos = (rows[name].to_numpy() for name in ("step", "class_a", "class_b", "grad_cos"))
        known = np.isin(step, steps) & np.isfinite(cos)
        step, a, b, cos = step[known], a[known], b[known], cos[known]
        at = np.searchsorted(steps, step)
        place = at * 3 + is_rare[a] + is_rare[b]
        for total, values in zip(sums, (None, cos < 0, cos, cos * norm[at, a] * norm[at, b]), strict=True):
            total += np.bincount(place, values, minlength=len(total))
    pairs, conflicts, cosines, products = sums.reshape(4, len(steps), 3)
    return PairSums(steps, pairs, conflicts, cosines, products, squares)
