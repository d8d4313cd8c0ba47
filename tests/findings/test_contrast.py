import numpy as np
import pandas as pd
import pytest

from imbdyn.findings.contrast import contrast, finite
from imbdyn.findings.groups import Groups
from imbdyn.findings.ranks import spearman
from imbdyn.findings.rows import longest_run, span
from imbdyn.findings.words import told_p, two

GROUP = Groups([0, 1], [2, 3, 4], "by hand")


def test_groups_that_do_not_overlap_have_delta_one() -> None:
    found = contrast({0: 5.0, 1: 6.0, 2: 1.0, 3: 2.0, 4: 3.0}, GROUP)
    # one of ten ways to choose two of five, on either side
    assert found == (5.5, 2.0, pytest.approx(2 / 10), 1.0)
    assert contrast({0: 1.0, 1: 1.0, 2: 2.0}, GROUP) == (1.0, 2.0, pytest.approx(2 / 3), -1.0)


def test_two_classes_have_no_test() -> None:
    assert contrast({0: 0.3, 1: 3.8}, Groups([0], [1], "by hand")) == (0.3, 3.8, None, -1.0)
    assert spearman([0.9, 1.6], [4752, 48]) is None


def test_delta_counts_pairs_and_ties_are_neither() -> None:
    # of the six pairs two are larger, one is equal and three are smaller
    found = contrast({0: 2.0, 1: 4.0, 2: 2.0, 3: 3.0, 4: 5.0}, GROUP)
    assert found is not None
    assert found.delta == pytest.approx((2 - 3) / 6)


def test_a_group_without_a_value_is_not_compared() -> None:
    assert contrast({0: 1.0, 1: 2.0}, GROUP) is None
    assert contrast({}, GROUP) is None
    assert finite(pd.Series([1.0, np.nan, np.inf], index=[3, 4, 5])) == {3: 1.0}


def test_spearman_of_monotone_values_is_one() -> None:
    # of the 120 orders of five values only two have a coefficient of 1 or -1
    assert spearman([1, 2, 3, 4, 5], [10, 100, 101, 1e6, 1e9]) == (pytest.approx(1), pytest.approx(2 / 120))
    assert spearman([5, 4, 3, 2, 1], [1, 2, 3, 4, 5]) == (pytest.approx(-1), pytest.approx(2 / 120))


def test_spearman_by_hand_and_with_ties() -> None:
    # d = 0, 1, -1, 0: 1 - 6 * 2 / (4 * 15)
    found = spearman([1, 2, 3, 4], [1, 3, 2, 4])
    assert found is not None
    assert found.rho == pytest.approx(0.8)
    # ranks 1.5, 1.5, 3.5, 3.5 and 1, 2, 3, 4: covariance 4, variances 4 and 5
    found = spearman([7, 7, 9, 9], [1, 2, 3, 4])
    assert found is not None
    assert found.rho == pytest.approx(4 / 20**0.5)
    # of the six assignments of the ties two are as extreme
    assert found.p_value == pytest.approx(2 / 6)


def test_spearman_of_many_is_drawn_and_reproducible() -> None:
    found = spearman(range(30), range(30))
    assert found == (pytest.approx(1), pytest.approx(1 / 10_000))
    assert spearman(range(30), range(30)) == found


@pytest.mark.parametrize("x", [[], [1.0], [2.0, 2.0, 2.0]])
def test_equal_values_have_no_correlation(x: list[float]) -> None:
    assert spearman(x, list(range(len(x)))) is None


def test_the_longest_run_is_the_first_of_equals() -> None:
    assert longest_run(pd.Series([True, False, True, True, False, True, True], index=[1, 2, 4, 8, 9, 10, 11])) == (4, 8)
    assert longest_run(pd.Series([False, False], index=[1, 2])) is None
    assert longest_run(pd.Series([], dtype=bool)) is None
    assert span(pd.Series([], dtype=int)) is None


def test_numbers_in_sentences() -> None:
    assert (two(-0.001), two(-0.5)) == ("0.00", "-0.50")
    assert (told_p(None), told_p(0.0001), told_p(0.0421)) == ("", " (p < 0.001)", " (p = 0.042)")
