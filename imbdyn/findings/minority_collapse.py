"""Minority collapse: the classifier's rows of the rare classes point the same way.

Definition. The mean of cos(w_a, w_b) over the pairs of rare classes, at the last evaluation; rows as they are, not
centred. 1 means that the classifier cannot tell rare classes apart.

Compared with -1/(K-1), which the simplex of neural collapse has for every pair, and with what SELI (see `seli`) has for
these counts, which grows to 1 with the imbalance.

Test. Randomisation over which classes are rare, one-sided: the share of all groups of that many classes whose mean
cosine is at least as large.

Source: Fang, He, Long, Su 2021, arXiv 2101.12699; the measure as in their code, HornHehhf/LPM minority_collapse.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imbdyn.findings.contrast import defined
from imbdyn.findings.finding import Finding
from imbdyn.findings.geometry import NO_PAIRS, cosine_matrix, last_pairs
from imbdyn.findings.groups import class_counts, groups
from imbdyn.findings.randomisation import assignments
from imbdyn.findings.seli import seli_grams
from imbdyn.findings.words import told_p, two

if TYPE_CHECKING:
    from imbdyn.trace import Trace

Floats = NDArray[np.float64]


def minority_collapse(trace: Trace) -> Finding:
    """Measure how alike the rare classes' rows of the classifier are."""
    group = groups(trace)
    counts = class_counts(trace)
    classes, few = len(counts), len(group.rare)
    found = Finding(
        name="minority_collapse",
        claim="The classifier's rows of the rare classes point the same way; the p-value is one-sided.",
        unit="mean cosine of the rows of two rare classes",
        null=-1 / (classes - 1) if classes > 1 else None,
        compared_with="the simplex",
        effect="mean cosine of two rare classes minus that of two others",
    )
    if few < 2:
        return replace(found, sentence=f"Fewer than two rare classes; rare: {group.rule}.")
    pairs = last_pairs(trace)
    if pairs.empty:
        return replace(found, sentence=NO_PAIRS)
    order = [*group.rare, *group.others]
    cos = cosine_matrix(pairs, "row_cos", classes)[np.ix_(order, order)]
    value = defined(_mean(cos[:few, :few]))
    if value is None:
        return replace(found, sentence="No two rows of rare classes have a cosine.")
    others = defined(_mean(cos[few:, few:]))
    as_large = [_mean(cos[np.ix_(chosen, chosen)]) >= value - 1e-9 for chosen in assignments(len(order), few)]
    p_value = float(np.mean(as_large))
    gram = seli_grams(counts)[0][np.ix_(group.rare, group.rare)]
    with np.errstate(invalid="ignore"):  # without a training sample SELI has no rows
        cos_seli = gram / np.sqrt(np.outer(np.diagonal(gram), np.diagonal(gram)))
    step = int(pairs["step"].iloc[0])
    of_class = {c: _mean(cos[[i], :few], without=i) for i, c in enumerate(group.rare)}
    return replace(
        found,
        value=value,
        p_value=p_value,
        effect_size=None if others is None else value - others,
        steps=(step, step),
        by_class={c: cosine for c, cosine in of_class.items() if np.isfinite(cosine)},
        sentence=(
            f"Two rows of rare classes have mean cosine {two(value)} (simplex {-1 / (classes - 1):.2f}, SELI "
            f"{_mean(cos_seli):.2f}), two others {'-' if others is None else two(others)}{told_p(p_value)}."
        ),
    )


def _mean(cos: Floats, without: int | None = None) -> float:
    """Return the mean of a block of cosines without its diagonal, or of one row without one column."""
    left_out = np.eye(len(cos), dtype=bool) if without is None else np.arange(cos.shape[1])[None] == without
    known = cos[~left_out & np.isfinite(cos)]
    return float(known.mean()) if len(known) else float("nan")
