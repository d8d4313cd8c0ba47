"""Conflict, noise, logit gradients and the motion of rows, from gradients that were written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from findings.synthetic_traces import class_rows, gradient_rows, write_rows

from imbdyn.findings.gradient_conflict import gradient_conflict, pair_sums
from imbdyn.findings.gradient_ratio import gradient_ratio
from imbdyn.findings.groups import groups
from imbdyn.findings.noise_scale import noise_scale
from imbdyn.findings.row_motion import row_rotation, row_update_ratio


class TestConflict:
    def test_hand_counted_pairs(self, tmp_path: Path) -> None:
        # rare class 0 against 1 and 2: in conflict with one; 1 and 2 with each other in the second step only
        steps = {5: [[1.0, 0.0], [-1.0, 1.0], [1.0, 1.0]], 9: [[0.0, 1.0], [1.0, 0.5], [-1.0, -1.0]]}
        rows = [row for step, g in steps.items() for row in gradient_rows(step, g)]
        found = gradient_conflict(write_rows(tmp_path / "run", [1, 9, 9], rows, rare=[0]))
        assert (found.value, found.null) == (2 / 4, 1 / 2)
        across = [-(2**-0.5), 2**-0.5, 0.5 / 1.25**0.5, -(2**-0.5)]
        others = [0.0, -1.5 / (1.25 * 2) ** 0.5]
        assert found.effect_size == pytest.approx(np.mean(across) - np.mean(others))
        # as groups: (1, 0) with (0, 2), (0, 1) with (0, -0.5)
        assert found.steps == (9, 9)
        assert "as groups in 1 of 2 steps" in found.sentence

    def test_group_cosine_is_that_of_the_sums(self, tmp_path: Path) -> None:
        gradients = np.random.default_rng(0).standard_normal((8, 7, 3))
        rows = [row for step, g in enumerate(gradients, 1) for row in gradient_rows(step, g)]
        trace = write_rows(tmp_path / "run", [1] * 3 + [9] * 4, rows, rare=[0, 1, 2])
        rare, others = gradients[:, :3].sum(1), gradients[:, 3:].sum(1)
        cos = (rare * others).sum(1) / (np.linalg.norm(rare, axis=1) * np.linalg.norm(others, axis=1))
        np.testing.assert_allclose(pair_sums(trace, groups(trace)).group_cosine(), cos, rtol=1e-9)

    def test_a_thousand_classes_come_in_several_row_groups(self, tmp_path: Path) -> None:
        g = np.random.default_rng(0).standard_normal((1000, 5))
        trace = write_rows(tmp_path / "run", [2] * 500 + [200] * 500, gradient_rows(1, g), rare=list(range(500)))
        found = gradient_conflict(trace)
        signs = g @ g.T < 0
        assert found.value == pytest.approx(signs[:500, 500:].mean())
        assert found.null == pytest.approx(signs[500:, 500:].sum() / (500 * 499))
        rare, others = g[:500].sum(0), g[500:].sum(0)
        cos = rare @ others / np.linalg.norm(rare) / np.linalg.norm(others)
        assert pair_sums(trace, groups(trace)).group_cosine()[0] == pytest.approx(cos)

    def test_other_parameters_and_absent_cosines_do_not_count(self, tmp_path: Path) -> None:
        rows = gradient_rows(1, [[1.0], [-1.0]])
        head = {"step": 1, "parameter": "head.weight", "class_a": 0, "class_b": 1, "grad_cos": 1.0}
        null = {"step": 2, "parameter": "*", "class_a": 0, "class_b": 1, "grad_cos": None}
        rows += [("class_gradient_pairs", head), ("class_gradient_pairs", null)]
        assert gradient_conflict(write_rows(tmp_path / "run", [1, 9], rows, rare=[0])).value == 1


class TestNoiseScale:
    def rows(self, step: int, samples: dict[int, np.ndarray], scale: float = 1.0) -> tuple[str, dict[str, Any]]:
        """Rows of one step with these samples' gradients [n, P] of each class, each 1/N of the batch's mean."""
        parts = {c: scale * g for c, g in samples.items()}
        return (
            "class_gradients",
            {
                "step": step,
                "parameter": "*",
                "class_id": list(parts),
                "count": [len(g) for g in parts.values()],
                "grad_norm": [float(np.linalg.norm(g.sum(0))) for g in parts.values()],
                "sample_norm_sq": [float((g**2).sum()) for g in parts.values()],
            },
        )

    def test_known_mean_and_covariance(self, tmp_path: Path) -> None:
        # mean (3, 0), sample covariance of trace 2 * 4 / 1: |m|^2 = 9 - 8 / 2
        spread = np.array([[3.0, 2.0], [3.0, -2.0]])
        steady = np.array([[3.0, 0.0], [3.0, 0.0]])
        found = noise_scale(
            write_rows(tmp_path / "run", [1, 9], [self.rows(1, {0: spread, 1: steady}, 1 / 32)], rare=[0])
        )
        assert found.by_class == pytest.approx({0: 8 / (9 - 4), 1: 0.0})
        assert (found.value, found.effect_size, found.steps) == (pytest.approx(1.6), 1.0, (1, 1))

    def test_rare_classes_without_two_samples_in_a_step_are_told_as_such(self, tmp_path: Path) -> None:
        rows = [self.rows(1, {0: np.array([[3.0]]), 1: np.array([[3.0], [4.0]])})]
        found = noise_scale(write_rows(tmp_path / "run", [1, 9], rows, rare=[0]))
        assert found.value is None
        assert found.sentence.startswith("Not known of both rare and other classes; one class has ")

    def test_steps_add_up_before_they_are_divided(self, tmp_path: Path) -> None:
        first, second = np.array([[2.0], [4.0]]), np.array([[-10.0], [12.0]])
        rows = [self.rows(1, {0: first}), self.rows(2, {0: second})]
        # traces 2 and 242; |m|^2 = 9 - 1 and 1 - 121
        by_class = noise_scale(write_rows(tmp_path / "a", [1, 9], rows, rare=[0])).by_class
        assert by_class is None, "no mean direction: 8 - 120 is not clipped"
        rows.append(self.rows(3, {0: np.array([[20.0], [20.0]])}))
        by_class = noise_scale(write_rows(tmp_path / "b", [1, 9], rows, rare=[0])).by_class
        assert by_class == pytest.approx({0: 244 / (8 - 120 + 400)})

    def test_gaussian_gradients_have_the_scale_of_their_distribution(self, tmp_path: Path) -> None:
        rng, dimensions, sigma, steps = np.random.default_rng(0), 50, 2.0, 400
        mean = np.zeros(dimensions)
        mean[0] = 5.0
        rows = [
            self.rows(step, {0: mean + sigma * rng.standard_normal((6, dimensions))}) for step in range(1, steps + 1)
        ]
        by_class = noise_scale(write_rows(tmp_path / "run", [1, 9], rows, rare=[0])).by_class
        assert by_class is not None
        # of |m|^2 one step has a standard deviation below 2 sigma |m| / sqrt(6) + sigma^2 sqrt(2 D) / 6 = 15
        exact = sigma**2 * dimensions / 25
        assert by_class[0] == pytest.approx(exact, rel=4 * 15 / 25 / steps**0.5)

    def test_single_samples_and_unread_ones_have_no_noise(self, tmp_path: Path) -> None:
        rows = [self.rows(1, {0: np.array([[1.0]]), 1: np.array([[1.0], [2.0]])})]
        rows[0][1]["sample_norm_sq"] = np.ma.masked_array(rows[0][1]["sample_norm_sq"], [False, True])
        found = noise_scale(write_rows(tmp_path / "run", [1, 9], rows, rare=[0]))
        assert (found.value, found.by_class) == (None, None)
        assert "No class has a noise scale" in found.sentence


class TestGradientRatio:
    def test_a_class_whose_bias_is_stationary_has_ratio_one(self, tmp_path: Path) -> None:
        rng, classes = np.random.default_rng(0), 3
        y, z = np.repeat([0, 1, 2], [2, 10, 20]), rng.standard_normal((32, classes))
        z = z + np.eye(classes)[y]

        def sums(bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            p = np.exp(z + bias)
            p /= p.sum(1, keepdims=True)
            own = np.eye(classes)[y]
            return (own * (1 - p)).sum(0), ((1 - own) * p).sum(0)

        bias = np.zeros(classes)
        positive, negative = sums(bias)
        rows = [class_rows(1, "train", epoch=1, positive_grad=positive, negative_grad=negative)]
        found = gradient_ratio(write_rows(tmp_path / "a", [2, 10, 20], rows, rare=[0]))
        assert found.value == pytest.approx(positive[0] / negative[0])
        for _ in range(5000):  # dL/db = -(positive - negative) / N
            positive, negative = sums(bias)
            bias += 0.5 * (positive - negative) / len(y)
        rows = [class_rows(1, "train", epoch=1, positive_grad=positive, negative_grad=negative)]
        found = gradient_ratio(write_rows(tmp_path / "b", [2, 10, 20], rows, rare=[0]))
        assert found.by_class == pytest.approx(dict.fromkeys(range(3), 1.0), abs=1e-6)

    def test_windows_add_up_before_they_are_divided(self, tmp_path: Path) -> None:
        rows = [
            class_rows(1, "train", epoch=1, positive_grad=[1.0, 8.0], negative_grad=[4.0, 2.0]),
            class_rows(2, "train", epoch=2, positive_grad=[5.0, 1.0], negative_grad=[2.0, 1.0]),
            class_rows(2, "test", epoch=2, positive_grad=[9.0, 9.0], negative_grad=[1.0, 1.0]),
        ]
        found = gradient_ratio(write_rows(tmp_path / "run", [1, 9], rows, rare=[0]))
        assert found.by_class == {0: 1.0, 1: 3.0}
        assert (found.value, found.effect_size, found.steps) == (1.0, -1.0, (1, 2))
        assert "0.25 in the first epoch, the others 3.00" in found.sentence


def rows_in(step: int) -> tuple[str, dict[str, Any]]:
    motion = {
        "row_update_norm": [0.2 * step, 0.4, 0.0],
        "row_rotation": np.ma.masked_invalid([0.1 * step, 0.05, np.nan]),
    }
    return "classifier", {"step": step, "split": "train", "class_id": [0, 1, 2], "row_norm": [2.0, 4.0, 5.0], **motion}


class TestRowMotion:
    def test_means_over_sampled_steps(self, tmp_path: Path) -> None:
        evaluation = ("classifier", {"step": 3, "split": "test", "class_id": [0, 1, 2], "row_norm": [9.0, 9.0, 9.0]})
        trace = write_rows(tmp_path / "run", [1, 9, 9], [rows_in(1), rows_in(3), evaluation], rare=[0])
        ratio, rotation = row_update_ratio(trace), row_rotation(trace)
        assert ratio.by_class == pytest.approx({0: 0.2, 1: 0.1, 2: 0.0})
        assert rotation.by_class == pytest.approx({0: 0.2, 1: 0.05})
        assert (ratio.value, ratio.effect_size, ratio.steps) == (pytest.approx(0.2), 1.0, (1, 3))
        assert "turn by 0.2 rad a step, those of others by 0.05 rad" in rotation.sentence

    def test_a_row_that_is_zero_has_no_ratio(self, tmp_path: Path) -> None:
        rows = {"step": 1, "split": "train", "class_id": [0, 1], "row_norm": [0.0, 1.0], "row_update_norm": [1.0, 1.0]}
        found = row_update_ratio(write_rows(tmp_path / "run", [1, 9], [("classifier", rows)], rare=[0]))
        assert (found.value, found.by_class) == (None, {1: 1.0})
