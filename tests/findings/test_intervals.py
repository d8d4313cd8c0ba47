import pytest

from imbdyn.findings.intervals import Interval, combine, wilson


def test_wilson_agrees_with_a_published_example() -> None:
    # Newcombe (1998), Statistics in Medicine 17:857, table I: 81 of 263.
    interval = wilson(81 / 263, 263)
    assert (round(interval.lower, 4), round(interval.upper, 4)) == (0.2553, 0.3662)


@pytest.mark.parametrize("proportion", [0.0, 1.0])
def test_wilson_has_a_width_at_the_ends_and_stays_inside(proportion: float) -> None:
    interval = wilson(proportion, 20)
    # z^2 / (n + z^2), the closed form at an end
    assert interval.upper - interval.lower == pytest.approx(3.8414588 / 23.8414588)
    assert interval.lower >= 0.0
    assert interval.upper <= 1.0


def test_difference_agrees_with_newcombes_method_10() -> None:
    # Newcombe (1998), Statistics in Medicine 17:873, table II: 56/70 - 48/80, method 10.
    interval = combine([1.0, -1.0], [wilson(56 / 70, 70), wilson(48 / 80, 80)])
    assert interval.value == pytest.approx(0.2)
    assert (round(interval.lower, 4), round(interval.upper, 4)) == (0.0524, 0.3339)


def test_negative_weight_exchanges_the_limits() -> None:
    assert combine([-2.0], [Interval(0.5, 0.4, 0.8)]) == pytest.approx((-1.0, -1.6, -0.8))


def test_a_census_adds_no_width() -> None:
    assert combine([1.0, 1.0], [Interval(0.3, 0.3, 0.3), Interval(0.5, 0.4, 0.7)]) == pytest.approx((0.8, 0.7, 1.0))
