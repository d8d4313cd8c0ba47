"""The condition against the two norms and the cosine, and against gradient descent on losses in closed form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from findings.synthetic_traces import class_rows, gradient_rows, write_rows

from imbdyn.findings.first_order import first_order_rise, fisher, rare_product
from imbdyn.findings.groups import groups


def test_the_condition_is_minus_cosine_above_the_norm_ratio(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    gradients = rng.standard_normal((60, 5, 4)) * np.array([0.5, 0.5, 1, 1, 1])[:, None]
    rows = [row for step, g in enumerate(gradients, 1) for row in gradient_rows(step, g)]
    trace = write_rows(tmp_path / "run", [5, 5, 50, 50, 50], rows, rare=[0, 1])
    product = rare_product(trace, groups(trace))
    rare, others = gradients[:, :2].sum(1), gradients[:, 2:].sum(1)
    norm_rare, norm_others = np.linalg.norm(rare, axis=1), np.linalg.norm(others, axis=1)
    condition = -(rare * others).sum(1) / (norm_rare * norm_others) > norm_rare / norm_others
    assert 10 < condition.sum() < 50
    np.testing.assert_array_equal(product < 0, condition)
    np.testing.assert_allclose(product, (rare * (rare + others)).sum(1), rtol=1e-9)


def test_gradient_descent_with_small_steps_does_as_predicted(tmp_path: Path) -> None:
    """L_rare = 0.01 |x - a|^2 / 2 and L_others = |x - b|^2 / 2: the rare loss falls, then rises as x passes a for b."""
    a, b, x, rate = np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([3.0, 0.2]), 0.02
    rows, rare_loss = [], []
    for step in range(1, 201):
        gradients = [0.01 * (x - a), x - b]
        rare_loss.append(0.01 * float((x - a) @ (x - a)) / 2)
        loss = [rare_loss[-1], float((x - b) @ (x - b)) / 2]
        rows += [class_rows(step, "train", since_step=step - 1, loss=loss), *gradient_rows(step, gradients)]
        x = x - rate * (gradients[0] + gradients[1])
    found = first_order_rise(write_rows(tmp_path / "run", [5, 50], rows, rare=[0]))
    lowest = int(np.argmin(rare_loss)) + 1
    assert 20 < lowest < 180
    assert (found.value, found.null, found.effect_size) == (1.0, 0.0, 1.0)
    assert found.p_value is not None
    assert found.p_value < 1e-6
    assert found.steps == (lowest, 200)


def test_the_lady_tasting_tea() -> None:
    # Fisher (1935): 3 of 4 cups named rightly, 17 of 70 ways are as good or better
    assert fisher(3, 4, 4, 8) == pytest.approx(17 / 70)
    assert fisher(0, 4, 4, 8) == 1


def test_steps_without_rare_samples_predict_nothing(tmp_path: Path) -> None:
    empty = ("class_gradients", {"step": 2, "parameter": "*", "class_id": 1, "count": 4, "grad_norm": 1.0})
    rows = [*gradient_rows(1, [[1.0, 0.0], [-2.0, 0.0]]), empty, *gradient_rows(3, [[1.0, 0.0], [2.0, 0.0]])]
    trace = write_rows(tmp_path / "run", [5, 50], rows, rare=[0])
    assert rare_product(trace, groups(trace)).to_dict() == pytest.approx({1: -1.0, 3: 3.0})


def test_gradients_that_are_zero_or_no_number(tmp_path: Path) -> None:
    key = {"parameter": "*", "class_id": [0, 1], "count": 1}
    rows = [
        (
            "class_gradients",
            {**key, "step": 1, "grad_norm": [0.0, 2.0], "grad_cos_total": np.ma.masked_invalid([np.nan, 1])},
        ),
        ("class_gradients", {**key, "step": 2, "grad_norm": [np.nan, 2.0], "grad_cos_total": [np.nan, np.nan]}),
    ]
    trace = write_rows(tmp_path / "run", [5, 50], rows, rare=[0])
    assert rare_product(trace, groups(trace)).to_dict() == {1: 0.0}


def test_without_a_step_that_outvotes_the_rare_classes_there_is_no_share(tmp_path: Path) -> None:
    rows = [row for step in (1, 2, 3) for row in gradient_rows(step, [[1.0, 0.0], [0.0, 1.0]])]
    rows += [class_rows(step, "train", loss=[1.0 / step, 1.0]) for step in (1, 2, 3)]
    found = first_order_rise(write_rows(tmp_path / "run", [5, 50], rows, rare=[0]))
    assert (found.value, found.steps) == (None, None)
    assert "in 0 of 3 steps; nothing to compare: the rare loss is known after 2 steps" in found.sentence
