"""Closed forms: the simplex equiangular tight frame, and scatter matrices inverted in full."""

from __future__ import annotations

import numpy as np
import pytest

from imbdyn.statistics.neural_collapse import geometry, nc4, variability


def simplex(classes: int, features: int) -> np.ndarray:
    """Rows of length 1 whose pairwise cosine is -1/(K-1), rotated into [K, D]."""
    frame = np.eye(classes) - 1 / classes
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((features, classes)))[0]
    return np.sqrt(classes / (classes - 1)) * frame @ rotation.T


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_a_simplex_with_its_dual_classifier_has_collapsed(classes: int) -> None:
    means = simplex(classes, 16)
    g = geometry(5 * means + 3.0, 0.1 * means)
    np.testing.assert_allclose(g, 0, atol=1e-12)


def test_an_orthogonal_frame_is_no_simplex_before_centring_but_is_one_after() -> None:
    assert geometry(np.eye(4, 8), np.eye(4, 8)).nc2_angle == pytest.approx(0, abs=1e-12)
    stretched = np.diag([1.0, 1.0, 1.0, 5.0])
    g = geometry(stretched, stretched)
    assert g.nc2_norm > 0.3
    assert g.nc2_angle > 0.1


@pytest.fixture
def unequal() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features [N, D] of four classes of 50 to 3 samples, their labels, and the class means."""
    rng = np.random.default_rng(1)
    y = np.repeat(np.arange(4), [50, 20, 5, 3])
    h = rng.standard_normal((4, 8))[y] * 3 + rng.standard_normal((len(y), 8))
    return h, y, np.stack([h[y == c].mean(0) for c in range(4)])


def test_nc1_is_the_trace_with_the_pseudo_inverse_in_every_weighting(
    unequal: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    h, y, means = unequal
    share = np.bincount(y) / len(y)
    scatter = [(h[y == c] - means[c]).T @ (h[y == c] - means[c]) / (y == c).sum() for c in range(4)]

    def trace(within: np.ndarray, weights: np.ndarray) -> float:
        centred = means - weights @ means
        between = (weights[:, None] * centred).T @ centred
        return float(np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / 4)

    equal = np.full(4, 1 / 4)
    pooled = sum(share[c] * scatter[c] for c in range(4))
    found = variability(h, y, means)
    assert found.nc1 == pytest.approx(trace(pooled, equal), rel=1e-9)
    assert found.nc1_sample == pytest.approx(trace(pooled, share), rel=1e-9)
    np.testing.assert_allclose(found.of_class, [trace(within, equal) for within in scatter], rtol=1e-9)
    assert found.of_class.mean() == pytest.approx(trace(sum(scatter) / 4, equal), rel=1e-9), "all by class"


def test_a_rare_class_that_spreads_is_seen_in_its_own_nc1_only() -> None:
    means = simplex(3, 5)
    y = np.array([0] * 1000 + [1] * 1000 + [2] * 2)
    h = means[y]
    h[-2:] += 1.0 * np.array([[1], [-1]]) * (means[2] - means[0])
    found = variability(h, y, means)
    assert found.nc1 < 0.01
    assert found.of_class[2] > 1
    np.testing.assert_allclose(found.of_class[:2], 0, atol=1e-25)


def test_nc1_of_collapsed_features_is_zero() -> None:
    means = simplex(3, 5)
    y = np.array([0, 0, 1, 1, 2, 2])
    found = variability(means[y], y, means)
    np.testing.assert_allclose([found.nc1, found.nc1_sample, *found.of_class], 0, atol=1e-25)


def test_a_class_of_one_sample_has_no_nc1_of_its_own_and_adds_nothing_to_the_others() -> None:
    means = simplex(3, 5)
    y = np.array([0, 0, 1, 1, 2])
    h = means[y]
    h[:2] += np.array([[1], [-1]]) * (means[1] - means[0])
    found = variability(h, y, means)
    assert found.of_class[0] > 1
    assert found.of_class[1] == pytest.approx(0, abs=1e-25)
    assert np.isnan(found.of_class[2])
    assert found.nc1 == pytest.approx(found.of_class[0] * 2 / 5)


def test_without_two_classes_or_directions_nothing_is_defined() -> None:
    assert np.isnan(geometry(np.ones((1, 4)), np.ones((1, 4)))).all()
    assert np.isnan(geometry(np.ones((3, 4)), np.ones((3, 4)))).all()
    for classes in (1, 2):
        found = variability(np.ones((classes, 4)), np.arange(classes), np.ones((classes, 4)))
        assert np.isnan([found.nc1, found.nc1_sample, *found.of_class]).all()


def test_nc4_counts_disagreement_with_the_nearest_mean() -> None:
    means = np.array([[0.0, 0.0], [10.0, 0.0]])
    h = np.array([[1.0, 0.0], [9.0, 0.0], [4.0, 0.0], [6.0, 0.0]])
    assert nc4(h, np.array([0, 1, 0, 1]), means) == 0
    assert nc4(h, np.array([0, 0, 1, -1]), means) == 0.75


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_of_a_network_that_diverged_have_no_collapse(value: float) -> None:
    h, y = np.full((6, 8), value), np.array([0, 0, 0, 1, 1, 2])
    with np.errstate(invalid="ignore"):
        measured = variability(h, y, np.full((3, 8), value))
    assert np.isnan([measured.nc1, measured.nc1_sample, *measured.of_class]).all()
    assert np.isnan(nc4(h, y, np.full((3, 8), value)))
