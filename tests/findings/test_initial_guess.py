"""Total variation of guesses in closed form, and its null against the binomial sum."""

from __future__ import annotations

from math import comb
from pathlib import Path

import pytest
from findings.synthetic_traces import class_rows, write_rows

from imbdyn.findings.initial_guess import binomial_deviation, initial_guess


def test_one_class_gets_all_guesses(tmp_path: Path) -> None:
    rows = [class_rows(0, predicted=[0, 100, 0, 0])]
    found = initial_guess(write_rows(tmp_path / "run", [90, 10, 90, 90], rows, rare=[1]))
    assert found.value == pytest.approx(1 - 1 / 4)
    assert (found.effect_size, found.steps) == (4.0, (0, 0))
    assert found.by_class == {0: 0.0, 1: 1.0, 2: 0.0, 3: 0.0}
    assert "guesses class 1 for 100% of samples (unbiased 25%), the rare classes 100% (25%)" in found.sentence


def test_equal_guesses_have_no_bias_and_less_than_chance(tmp_path: Path) -> None:
    found = initial_guess(write_rows(tmp_path / "run", [9] * 4, [class_rows(0, predicted=[25] * 4)]))
    assert found.value == 0
    by_sum = sum(comb(100, k) * 0.25**k * 0.75 ** (100 - k) * abs(k - 25) for k in range(101)) / 100
    assert found.null == pytest.approx(4 / 2 * by_sum)


@pytest.mark.parametrize(("n", "p"), [(1, 0.1), (7, 0.5), (10, 0.1), (33, 0.9), (50, 1.0)])
def test_mean_deviation_is_that_of_the_binomial_sum(n: int, p: float) -> None:
    by_sum = sum(comb(n, k) * p**k * (1 - p) ** (n - k) * abs(k - n * p) for k in range(n + 1))
    assert binomial_deviation(n, p) == pytest.approx(by_sum, abs=1e-12)


def test_training_data_are_preferred_and_the_first_batch_is_the_last_resort(tmp_path: Path) -> None:
    first_batch = class_rows(1, "train", since_step=0, predicted=[3, 1])
    test, train = class_rows(0, "test", predicted=[2, 2]), class_rows(0, "train_eval", predicted=[4, 0])
    for number, (rows, value) in enumerate(
        [([first_batch], 0.25), ([first_batch, test], 0.0), ([first_batch, test, train], 0.5)]
    ):
        assert initial_guess(write_rows(tmp_path / str(number), [9, 9], rows)).value == value


def test_windows_after_the_first_step_are_of_a_trained_network(tmp_path: Path) -> None:
    rows = [class_rows(5, "train", since_step=0, predicted=[3, 1]), class_rows(5, "train_eval", predicted=[3, 1])]
    found = initial_guess(write_rows(tmp_path / "run", [9, 9], rows))
    assert (found.value, found.steps) == (None, None)
    assert "evaluate before the first step" in found.sentence
