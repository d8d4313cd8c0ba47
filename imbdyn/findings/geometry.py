"""Cosines of two classes' classifier rows and means as matrices, from the last evaluation that has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imbdyn.findings.rows import features_split, last_rows

if TYPE_CHECKING:
    import pandas as pd

    from imbdyn.trace import Trace

Floats = NDArray[np.float64]

#: The sentence of a trace without pairs.
NO_PAIRS = "No cosines of two classes: evaluations have them, of up to 100 classes."


def last_pairs(trace: Trace) -> pd.DataFrame:
    """Return the rows of `class_feature_pairs` of the last evaluation, of the training data if there is one."""
    return last_rows(trace.class_feature_pairs, features_split(trace))


def cosine_matrix(pairs: pd.DataFrame, column: str, classes: int) -> Floats:
    """Return [K, K] cosines: 1 on the diagonal, NaN where there is none."""
    cos = np.full((classes, classes), np.nan)
    np.fill_diagonal(cos, 1.0)
    a, b = pairs["class_a"].to_numpy(), pairs["class_b"].to_numpy()
    cos[a, b] = cos[b, a] = pairs[column].to_numpy(dtype=float)
    return cos


def centred(gram: Floats) -> Floats:
    """Return the Gram matrix of the same vectors minus their mean."""
    means = gram.mean(0)
    return np.asarray(gram - means - means[:, None] + gram.mean())


def distance(gram: Floats, target: Floats) -> float:
    """Return || G/||G||_F - T/||T||_F ||_F, 0 for the same shape and at most sqrt(2) between Gram matrices."""
    norms = np.linalg.norm(gram), np.linalg.norm(target)
    if not min(norms) > 0:
        return float("nan")
    return float(np.linalg.norm(gram / norms[0] - target / norms[1]))
