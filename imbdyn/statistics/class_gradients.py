"""What follows from the Gram matrix of the class gradients of a parameter.

G_c is the part of a parameter's gradient that flows through the rows of class c, gram[a, b] = <G_a, G_b>, and
g = sum_c G_c. P parameters, C classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


#: Share of the network's gradient below which a parameter's is rounding.
_ROUNDING = 1e-5


class ClassGradientStatistics(NamedTuple):
    """One number a class, each [..., C]; NaN where it is not defined."""

    grad_norm: Floats
    """||G_c||."""
    grad_cos_total: Floats
    """cos(G_c, g)."""
    grad_share: Floats
    """<G_c, g> / ||g||^2, which sums to 1 over the classes."""
    grad_noise: Floats
    """tr(S_c) / |m_c|^2: the gradient noise scale within the class, in samples."""


def describe(gram: Floats, sample_norm_sq: Floats, count: Floats) -> ClassGradientStatistics:
    """Read norms, alignments, shares and noise off Gram matrices.

    Args:
        gram: [..., C, C].
        sample_norm_sq: [..., C], sum over the samples i of class c of ||g_i||^2.
        count: [C], samples n_c.

    The noise scale is tr(S_c) / |m_c|^2 of the samples' gradients g_i, with the unbiased estimates
    tr(S_c) = (sum ||g_i||^2 - ||G_c||^2 / n_c) / (n_c - 1) and |m_c|^2 = ||G_c||^2 / n_c^2 - tr(S_c) / n_c.
    Where the latter is not positive the samples do not determine a mean direction, and the result is NaN.

    Source of the noise scale: McCandlish et al. (2018), arXiv 1812.06162.
    """
    norm_sq = np.diagonal(gram, axis1=-2, axis2=-1)
    with_total = gram.sum(-1)
    total_sq = np.maximum(with_total.sum(-1, keepdims=True), 0.0)
    norm = np.sqrt(np.maximum(norm_sq, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        cos_total = _defined(with_total / (norm * np.sqrt(total_sq)))
        share = _defined(with_total / total_sq)
        trace = np.maximum(sample_norm_sq - norm_sq / count, 0.0) / (count - 1)
        mean_sq = norm_sq / count**2 - trace / count
        noise = np.where((mean_sq > 0) & (count > 1), trace / mean_sq, np.nan)
    return ClassGradientStatistics(norm, np.clip(cos_total, -1.0, 1.0), share, noise)


def cosines(gram: Floats) -> Floats:
    """Return cos(G_a, G_b) [..., C, C] of a Gram matrix; NaN where a norm is 0."""
    norm = np.sqrt(np.maximum(np.diagonal(gram, axis1=-2, axis2=-1), 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.clip(_defined(gram / (norm[..., :, None] * norm[..., None, :])), -1.0, 1.0)


def grad_scale(gram: Floats, grad_norm_sq: Floats) -> float:
    """Return the factor s with p.grad = s sum_c G_c that the parameters agree on; 1 if nothing can be compared.

    Args:
        gram: [P, C, C].
        grad_norm_sq: [P], ||p.grad||^2.

    A loss scale, clipping or an averaged accumulation multiplies every gradient alike, so s^2 is the median of
    ||p.grad||^2 / sum_ab gram[a, b]. Each parameter has one vote, worth less the more its classes cancel (the ratio is
    then mostly rounding): a parameter that is read wrongly does not move it, however large its gradient is.
    """
    total_sq, parts_sq = gram.sum((-2, -1)), _parts_sq(gram)
    usable = (total_sq > 0) & (grad_norm_sq > 0) & np.isfinite(total_sq) & np.isfinite(grad_norm_sq)
    if not usable.any():
        return 1.0
    ratio = grad_norm_sq[usable] / total_sq[usable]
    vote = total_sq[usable] / parts_sq[usable]
    order = np.argsort(ratio)
    middle = np.searchsorted(np.cumsum(vote[order]), vote.sum() / 2)
    return float(np.sqrt(ratio[order][min(int(middle), len(order) - 1)]))


def residual(gram: Floats, grad_norm_sq: Floats, scale: float) -> Floats:
    """Return |s^2 sum_ab gram[a, b] - ||p.grad||^2| / (s sum_c ||G_c||)^2 for Gram matrices [P, C, C]: [P].

    Relative to the parts, not to the whole: where the classes cancel, ||p.grad|| may be 1e-5 of them. The parts of a
    parameter count for at least 1e-5 of those of all: below, a gradient is rounding (a bias before a normalisation has
    gradient 0, and what is computed is some 1e-8). 0 where all gradients are 0; NaN or inf in a gradient comes out as
    NaN.
    """
    parts_sq = scale**2 * _parts_sq(gram)
    difference = np.abs(scale**2 * gram.sum((-2, -1)) - grad_norm_sq)
    least = _ROUNDING**2 * np.sum(parts_sq, where=np.isfinite(parts_sq))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((parts_sq == 0) & (difference == 0), 0.0, difference / np.maximum(parts_sq, least))


def _parts_sq(gram: Floats) -> Floats:
    """(sum_c ||G_c||)^2 of Gram matrices [P, C, C]: [P]."""
    norms: Floats = np.sqrt(np.maximum(np.diagonal(gram, axis1=-2, axis2=-1), 0.0)).sum(-1)
    return norms**2


def _defined(values: Floats) -> Floats:
    """Turn the infinities of a division by zero into NaN: not defined."""
    return np.where(np.isfinite(values), values, np.nan)
