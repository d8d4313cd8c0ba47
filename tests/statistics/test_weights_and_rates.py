"""The small formulas: motion of a weight, rates of a window, shift of features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from imbdyn.ops import class_moments
from imbdyn.statistics.features import pair_cosines, shift, summarise
from imbdyn.statistics.logits import class_rates, overall_rates
from imbdyn.statistics.weights import weight_motion


def test_rotation_is_exact_for_small_angles() -> None:
    angle = 1e-6
    w, before = np.array([np.cos(angle), np.sin(angle)]), np.array([1.0, 0.0])
    dw = w - before
    motion = weight_motion(np.ones(1), np.array([np.linalg.norm(dw)]), np.array([w @ dw]))
    assert motion.rotation[0] == pytest.approx(angle, rel=1e-3)


def test_motion_of_known_vectors() -> None:
    w, before = np.array([0.0, 2.0]), np.array([2.0, 0.0])
    dw = w - before
    motion = weight_motion(np.array([2.0]), np.array([np.linalg.norm(dw)]), np.array([w @ dw]))
    assert motion.rotation[0] == pytest.approx(np.pi / 2)
    assert motion.update_ratio[0] == pytest.approx(np.sqrt(2))
    assert motion.cos_weight_update[0] == pytest.approx(1 / np.sqrt(2))


def test_a_zero_weight_or_update_has_no_direction() -> None:
    motion = weight_motion(np.array([0.0, 1.0, 1.0]), np.array([1.0, 0.0, 1.0]), np.array([0.0, 0.0, 1.0]))
    assert np.isnan(motion.update_ratio[0])
    assert np.isnan(motion.cos_weight_update[:2]).all()
    assert np.isnan(motion.rotation[[0, 2]]).all(), "from or to the zero vector there is no angle"
    assert motion.rotation[1] == 0


def test_rates_divide_by_the_counts_they_belong_to() -> None:
    sums = np.zeros((8, 3))
    sums[0] = [4, 0, 2]  # count
    sums[1] = [2.0, 0, 6.0]  # loss
    sums[2] = [3, 0, 0]  # correct
    sums[5] = [5, 1, 0]  # predicted
    rates = class_rates(sums)
    np.testing.assert_allclose(rates.loss, [0.5, np.nan, 3.0])
    np.testing.assert_allclose(rates.accuracy, [0.75, np.nan, 0.0])
    np.testing.assert_allclose(rates.precision, [0.6, 0.0, np.nan])
    overall = overall_rates(sums)
    assert overall.loss == pytest.approx(8 / 6)
    assert overall.accuracy == pytest.approx(0.5)
    assert overall.balanced_accuracy == pytest.approx(0.375), "the absent class has no recall"
    assert np.isnan(overall_rates(np.zeros((8, 3)))).all()


def test_exchangeable_features_shift_by_one_on_average() -> None:
    generator = torch.Generator().manual_seed(0)
    shifts = []
    for _ in range(200):
        a, b = (torch.randn(n, 12, generator=generator, dtype=torch.float64) for n in (20, 30))
        labels = [torch.zeros(len(part), dtype=torch.int64) for part in (a, b)]
        summaries = [summarise(class_moments(part, label, 2)) for part, label in zip((a, b), labels, strict=True)]
        shifts.append(shift(*summaries)[0])
    assert np.mean(shifts) == pytest.approx(1.0, abs=4 * np.std(shifts) / np.sqrt(200))


def test_summary_of_classes_with_one_sample_or_none() -> None:
    x = torch.tensor([[3.0, 4.0], [1.0, 0.0], [3.0, 0.0]])
    summary = summarise(class_moments(x, torch.tensor([0, 1, 1]), 3))
    np.testing.assert_allclose(summary.mean_norm, [5, 2, np.nan])
    np.testing.assert_allclose(summary.within_var, [np.nan, 2, np.nan])
    np.testing.assert_allclose(summary.centred[:2], [[0.5, 2], [-0.5, -2]])
    assert np.isnan(summary.cos_global[2])


def test_cosines_of_rows_and_of_centred_means() -> None:
    x = torch.tensor([[4.0, 1.0], [2.0, 1.0], [3.0, 4.0]], dtype=torch.float64)
    summary = summarise(class_moments(x, torch.tensor([0, 1, 3]), 4))
    np.testing.assert_allclose(summary.centred_norm, [2**0.5, 2**0.5, np.nan, 2])
    rows = np.array([[1.0, 0.0], [1.0, 1.0], [-1.0, 0.0], [0.0, 0.0]])
    of_rows, of_means = pair_cosines(rows, summary)
    np.testing.assert_allclose(of_rows[0, :3], [1, 2**-0.5, -1])
    assert np.isnan(of_rows[3]).all(), "a row of length 0 has no direction"
    # about the mean (3, 2) of the three: (1, -1), (-1, -1), (0, 2)
    np.testing.assert_allclose(of_means[0, [1, 3]], [0, -(2**-0.5)], atol=1e-12)
    assert np.isnan(of_means[2]).all(), "an absent class has no mean"
