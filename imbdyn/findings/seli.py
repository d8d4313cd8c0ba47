"""Distance of classifier and class means to SELI, the geometry of minimum loss for classes of unequal size.

Definition. P = I - 11^T/K, D = diag(n_c). The simplex-encoded labels Z = P Y have the singular value decomposition
Z = V L U^T. SELI has W W^T ~ V L V^T = (P D P)^(1/2) and, by class, H^T H ~ (P D P)^(+1/2), the root of the
pseudo-inverse. The measure is || G/||G||_F - G^/||G^||_F ||_F of a Gram matrix G and SELI's G^: 0 for the same shape up
to scale and rotation, at most sqrt(2). With equal counts SELI is the simplex of neural collapse.

Convention. Rows and class means are centred by their mean over classes, as SELI's are; classes without a training
sample are left out. Of two classes there is no measure: centred, any two vectors have this shape. The last evaluation
of the training data, else of other data.

SELI is what unconstrained features and vanishing weight decay lead to, and convergence is slower the larger the
imbalance: a network far from it is no bug. The distance to the simplex stands beside it.

Source: Thrampoulidis, Kini, Vakilian, Behnia 2022, arXiv 2208.05512. The matrix roots are ours: V, L and U follow from
Z Z^T = P D P.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imbdyn.findings.contrast import defined
from imbdyn.findings.finding import Finding
from imbdyn.findings.geometry import NO_PAIRS, centred, cosine_matrix, distance, last_pairs
from imbdyn.findings.groups import class_counts
from imbdyn.findings.rows import last_rows, on_split

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from imbdyn.trace import Trace

Floats = NDArray[np.float64]


def seli_rows(trace: Trace) -> Finding:
    """Measure how far the classifier's rows are from SELI."""
    pairs = last_pairs(trace)
    split = None if pairs.empty else pairs["split"].iloc[0]
    norms = last_rows(trace.classifier, split).set_index("class_id")["row_norm"]
    return _distance(trace, "seli_rows", "Classifier rows", pairs, "row_cos", norms)


def seli_means(trace: Trace) -> Finding:
    """Measure how far the class means of the features are from SELI."""
    pairs = last_pairs(trace)
    split = None if pairs.empty else pairs["split"].iloc[0]
    norms = last_rows(trace.class_features, split).set_index("class_id")["centred_norm"]
    return _distance(trace, "seli_means", f"Class means{on_split(split)}", pairs, "mean_cos", norms)


def seli_grams(counts: Sequence[int]) -> tuple[Floats, Floats]:
    """Return SELI's Gram matrices [K, K] of the rows and of the class means, for classes of these sizes."""
    centring = np.eye(len(counts)) - 1 / max(len(counts), 1)
    values, vectors = np.linalg.eigh(centring * np.asarray(counts, dtype=float) @ centring)
    kept = values > len(counts) * np.finfo(float).eps * values.max(initial=0.0)
    vectors, singular = vectors[:, kept], np.sqrt(values[kept])
    return vectors * singular @ vectors.T, vectors / singular @ vectors.T


def _distance(trace: Trace, name: str, what: str, pairs: pd.DataFrame, column: str, norms: pd.Series[float]) -> Finding:
    found = Finding(
        name=name,
        claim=f"{what} have the geometry of minimum loss for classes of these sizes (SELI).",
        unit="distance of normalised Gram matrices",
        compared_with="the SELI of these counts, where it is 0",
        effect="distance to the simplex minus distance to SELI: positive if SELI is nearer",
    )
    if pairs.empty:
        return replace(found, sentence=NO_PAIRS)
    counts = np.asarray(class_counts(trace))
    lengths = norms.reindex(range(len(counts))).to_numpy(dtype=float)
    used = np.flatnonzero((counts > 0) & np.isfinite(lengths))
    if len(used) < 2:
        return replace(found, sentence=f"{what} of fewer than two classes with training samples have a length.")
    if len(used) == 2:
        return replace(found, sentence=f"{what} of two classes, centred, have the geometry of SELI whatever they are.")
    cos = cosine_matrix(pairs, column, len(counts))[np.ix_(used, used)]
    products = np.outer(lengths[used], lengths[used])
    if np.isnan(cos[products > 0]).any():
        return replace(found, sentence=NO_PAIRS)
    gram = centred(np.nan_to_num(cos) * products)  # a vector of length 0 has no cosine
    target = seli_grams(counts[used].tolist())[0 if column == "row_cos" else 1]
    value = defined(distance(gram, target))
    if value is None:
        return replace(found, sentence=f"{what} are all alike.")
    simplex = distance(gram, np.eye(len(used)) - 1 / len(used))
    step = int(pairs["step"].iloc[0])
    return replace(
        found,
        value=value,
        effect_size=simplex - value,
        steps=(step, step),
        sentence=f"{what} are {value:.2f} from SELI for these counts and {simplex:.2f} from the simplex (0 to 1.41).",
    )
