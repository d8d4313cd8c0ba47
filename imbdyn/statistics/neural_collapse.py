"""Neural collapse NC1 to NC4 as Papyan, Han and Donoho (2020) define them, for classes of any size.

Convention, since under imbalance it matters by a factor of 5: S_W pools all samples (a class weighs as its count),
S_B and the global mean weigh every class alike (mean of class means). `Variability` names the others. Classes without
samples are left out; K counts those that are present.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Geometry(NamedTuple):
    """NC2 and NC3, which need the class means and the classifier only."""

    nc2_norm: float
    """std / mean of ||mu_c - mu_G||; 0 when the class means are equally long."""
    nc2_angle: float
    """Mean over pairs of |cos(mu_a - mu_G, mu_b - mu_G) + 1/(K-1)|; 0 for a simplex."""
    nc3: float
    """||W/||W||_F - M/||M||_F||_F^2 with M the centred class means; 0 when classifier and means are dual."""


def geometry(mean_KD: Floats, weight_KD: Floats) -> Geometry:
    """Compute NC2 and NC3 of the class means [K, D] and the classifier's rows [K, D] of the classes present.

    NaN throughout with fewer than two classes, or where all class means coincide.
    """
    classes = mean_KD.shape[0]
    centred = mean_KD - mean_KD.mean(0)
    norms = np.linalg.norm(centred, axis=1)
    if classes < 2 or not norms.mean() > 0:
        return Geometry(np.nan, np.nan, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = centred / norms[:, None]
        cos = (unit @ unit.T)[~np.eye(classes, dtype=bool)]
        dual = weight_KD / np.linalg.norm(weight_KD) - centred / np.linalg.norm(centred)
    return Geometry(
        nc2_norm=float(norms.std() / norms.mean()),
        nc2_angle=float(np.abs(cos + 1 / (classes - 1)).mean()),
        nc3=float((dual**2).sum()),
    )


class Variability(NamedTuple):
    """NC1 = tr(S_W pinv(S_B)) / K by what a class weighs.

    NaN with fewer than two classes, where all means coincide, and where features are not finite.

    The mean over classes of `of_class` is NC1 with every class weighing alike in S_W too, if none has one sample.
    """

    nc1: float
    """S_W pooled over samples, S_B and the global mean with every class alike (Papyan, Han, Donoho 2020)."""
    nc1_sample: float
    """Every class weighs as its count, in S_W, S_B and the global mean."""
    of_class: Floats
    """[K], with the covariance of the class's own samples for S_W, and S_B as in `nc1`: in the pooled S_W a rare class
    that has not collapsed cannot be seen. NaN for a class of one sample, which is its own mean."""


def variability(features_ND: Floats, local_N: NDArray[np.int64], mean_KD: Floats) -> Variability:
    """Compute NC1 from features [N, D], their class index in 0..K-1 and the class means [K, D]."""
    classes = mean_KD.shape[0]
    count = np.bincount(local_N, minlength=classes)
    share = count / max(len(local_N), 1)
    centred_ND = features_ND - mean_KD[local_N]
    of_class = _nc1_of_class(centred_ND, local_N, mean_KD, np.full(classes, 1 / max(classes, 1)))
    by_sample = _nc1_of_class(centred_ND, local_N, mean_KD, share)
    return Variability(float(share @ of_class), float(share @ by_sample), np.where(count > 1, of_class, np.nan))


def _nc1_of_class(centred_ND: Floats, local_N: NDArray[np.int64], mean_KD: Floats, weight_K: Floats) -> Floats:
    """Return tr(S_c pinv(S_B)) / K [K], S_B = sum_c w_c (mu_c - mu_G)(mu_c - mu_G)^T and mu_G = sum_c w_c mu_c.

    S_B has rank K - 1 at most; singular values below eps(float32) of the largest count as zero, since the features
    are float32 as a rule.
    """
    classes = mean_KD.shape[0]
    if not np.isfinite(mean_KD).all():  # of a network that diverged; the SVD would not converge
        return np.full(classes, np.nan)
    between_KD = np.sqrt(weight_K)[:, None] * (mean_KD - weight_K @ mean_KD)
    _, singular, directions = np.linalg.svd(between_KD, full_matrices=False)
    kept = singular > max(between_KD.shape) * np.finfo(np.float32).eps * singular.max(initial=0.0)
    if classes < 2 or not kept.any():
        return np.full(classes, np.nan)
    within_NK = centred_ND @ (directions[kept] / singular[kept, None]).T
    count = np.bincount(local_N, minlength=classes)
    return np.asarray(np.bincount(local_N, (within_NK**2).sum(1), minlength=classes) / count / classes)


def nc4(features_ND: Floats, prediction_N: NDArray[np.int64], mean_KD: Floats) -> float:
    """Return the share of samples whose prediction (class index in 0..K-1, else -1) is not the nearest class mean.

    NaN where features are not finite.
    """
    if not np.isfinite(mean_KD).all():
        return float("nan")
    distance = (mean_KD**2).sum(1) - 2 * features_ND @ mean_KD.T
    return float((distance.argmin(1) != prediction_N).mean())
