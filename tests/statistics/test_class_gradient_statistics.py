"""Norms, shares, noise, scale and residual from Gram matrices, against gradients that were written down."""

from __future__ import annotations

import numpy as np
import pytest

from imbdyn.statistics.class_gradients import cosines, describe, grad_scale, residual


def gram_of(gradients: list[list[float]]) -> np.ndarray:
    g = np.array(gradients)
    return g @ g.T


def test_two_orthogonal_classes() -> None:
    gram = gram_of([[3.0, 0.0], [0.0, 4.0]])
    s = describe(gram, np.array([9.0, 16.0]), np.array([1.0, 1.0]))
    np.testing.assert_allclose(s.grad_norm, [3, 4])
    np.testing.assert_allclose(s.grad_cos_total, [3 / 5, 4 / 5])
    np.testing.assert_allclose(s.grad_share, [9 / 25, 16 / 25])
    assert np.isnan(s.grad_noise).all(), "one sample has no variance"
    np.testing.assert_allclose(cosines(gram), np.eye(2))


def test_a_class_that_opposes_the_step_has_a_negative_share() -> None:
    s = describe(gram_of([[2.0, 0.0], [-1.0, 0.0]]), np.array([4.0, 1.0]), np.array([1.0, 1.0]))
    np.testing.assert_allclose(s.grad_share, [2, -1])
    np.testing.assert_allclose(s.grad_cos_total, [1, -1])


def test_opposite_classes_that_cancel_have_no_share() -> None:
    s = describe(gram_of([[1.0], [-1.0]]), np.array([1.0, 1.0]), np.array([1.0, 1.0]))
    assert np.isnan(s.grad_share).all()
    assert np.isnan(s.grad_cos_total).all()


def test_a_zero_gradient_has_no_direction() -> None:
    gram = gram_of([[1.0, 1.0], [0.0, 0.0]])
    assert np.isnan(cosines(gram)[0, 1])
    assert describe(gram, np.array([2.0, 0.0]), np.array([1.0, 1.0])).grad_norm[1] == 0


def test_noise_scale_of_iid_gaussian_gradients() -> None:
    """g_i ~ N(m, s^2 I / d): tr(S) = s^2 and |m|^2 are known, so the noise scale is s^2 / |m|^2."""
    rng = np.random.default_rng(0)
    n, d, deviation = 4000, 50, 3.0
    mean = np.zeros(d)
    mean[0] = 2.0
    g = mean + deviation / np.sqrt(d) * rng.standard_normal((n, d))
    contribution = g / n  # a mean loss: the scale is free of the factor
    s = describe(
        np.array([[(contribution.sum(0) ** 2).sum()]]), np.array([(contribution**2).sum()]), np.array([float(n)])
    )
    assert s.grad_noise[0] == pytest.approx(deviation**2 / 4.0, rel=0.05)


def test_noise_without_a_mean_direction_is_not_a_number() -> None:
    s = describe(np.array([[0.0]]), np.array([2.0]), np.array([2.0]))
    assert np.isnan(s.grad_noise[0])


@pytest.mark.parametrize("scale", [1.0, 1 / 65536, 3.0])
def test_grad_scale_is_not_moved_by_one_wrong_parameter(scale: float) -> None:
    gram = np.stack([gram_of([[1.0, 2.0], [2.0, 0.5]]) * k for k in (1.0, 5.0, 0.01, 7.0)])
    grad_norm_sq = scale**2 * gram.sum((1, 2))
    grad_norm_sq[1] *= 1e6
    assert grad_scale(gram, grad_norm_sq) == pytest.approx(scale)


def test_grad_scale_ignores_parameters_whose_classes_cancel() -> None:
    good, cancelling = gram_of([[1.0], [1.0]]), gram_of([[1.0], [-1.0 + 1e-7]])
    gram = np.stack([good, cancelling, cancelling])
    total = gram.sum((1, 2))
    assert grad_scale(gram, np.array([total[0], 9 * total[1], 4 * total[2]])) == pytest.approx(1.0)


def test_grad_scale_without_any_gradient_is_one() -> None:
    assert grad_scale(np.zeros((2, 3, 3)), np.zeros(2)) == 1.0


def test_residual_is_relative_to_the_parts() -> None:
    gram = gram_of([[1.0], [-1.0]])[None]
    np.testing.assert_allclose(residual(gram, np.array([4e-6]), 1.0), [1e-6])
    np.testing.assert_allclose(residual(gram_of([[3.0]])[None], np.array([36.0]), 2.0), [0.0], atol=1e-15)


def test_residual_of_nothing_is_zero_and_of_nan_is_nan() -> None:
    assert residual(np.zeros((1, 2, 2)), np.zeros(1), 1.0)[0] == 0
    assert np.isnan(residual(np.full((1, 2, 2), np.nan), np.ones(1), 1.0)[0])
