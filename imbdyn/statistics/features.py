"""What class moments say of the features of each class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imbdyn.ops import ClassMoments
from imbdyn.statistics.class_gradients import cosines

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FeatureSummary:
    """The class moments of an evaluation as numbers a class, each [C]; NaN where a class has too few samples."""

    count: NDArray[np.int64]
    mean: Floats
    """[C, D]."""
    mean_norm: Floats
    within_var: Floats
    """Trace of the sample covariance."""
    cos_global: Floats
    centred: Floats
    """[C, D]: mu_c - mu_G, mu_G the mean over the classes present."""
    centred_norm: Floats


def summarise(moments: ClassMoments) -> FeatureSummary:
    """Read norms, variances and directions off class moments."""
    count = moments.count.cpu().numpy()
    mean = moments.mean.double().cpu().numpy()
    m2 = moments.m2.double().cpu().numpy()
    present = count > 0
    norm = np.linalg.norm(mean, axis=1)
    centre = mean[present].mean(0) if present.any() else mean.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        within_var = np.where(count > 1, m2.sum(1) / (count - 1), np.nan)
        cos_global = np.where(present, mean @ centre / (norm * np.linalg.norm(centre)), np.nan)
    centred = mean - centre
    centred_norm = np.where(present, np.linalg.norm(centred, axis=1), np.nan)
    return FeatureSummary(count, mean, np.where(present, norm, np.nan), within_var, cos_global, centred, centred_norm)


def shift(test: FeatureSummary, train: FeatureSummary) -> Floats:
    """Return ||mu_c - mu_c'||^2 / (tr(S_c) / n_c + tr(S_c') / n_c') [C]; 1 is expected of exchangeable features."""
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = test.within_var / test.count + train.within_var / train.count
        return np.asarray(((test.mean - train.mean) ** 2).sum(1) / np.where(expected > 0, expected, np.nan))


def cos_class_mean(rows: Floats, features: FeatureSummary) -> Floats:
    """Return cos(w_c - mean of rows, mu_c - mu_G) [C] of the classifier's rows [C, D]; NaN for absent classes.

    Both means are over the classes that are present (Papyan, Han, Donoho 2020: their self-duality, class by class).
    """
    present = features.count > 0
    centred = rows - rows[present].mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        norms = np.linalg.norm(centred, axis=1) * np.linalg.norm(features.centred, axis=1)
        return np.where(present, (centred * features.centred).sum(1) / norms, np.nan)


def pair_cosines(rows: Floats, features: FeatureSummary) -> tuple[Floats, Floats]:
    """Return cos(w_a, w_b) of the classifier's rows [C, D], and cos(mu_a - mu_G, mu_b - mu_G), each [C, C].

    NaN for a vector of length 0 and, of the means, for absent classes. The rows are not centred: Fang et al. 2021.
    """
    present = features.count > 0
    between_means = cosines(features.centred @ features.centred.T)
    return cosines(rows @ rows.T), np.where(present[:, None] & present, between_means, np.nan)
