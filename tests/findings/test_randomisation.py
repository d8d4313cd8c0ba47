import pytest

from imbdyn.findings.randomisation import randomisation_p


def test_separate_groups_have_one_assignment_in_ten() -> None:
    assert randomisation_p([5, 6], [1, 2, 3]) == (1 / 10, 1.0)


def test_the_other_direction_is_the_mirror_image() -> None:
    assert randomisation_p([1, 2], [4, 5, 6]) == (1.0, 1 / 10)


def test_equal_values_are_all_ties() -> None:
    assert randomisation_p([0.1, 0.1, 0.1], [0.1, 0.1]) == (1.0, 1.0)


def test_hand_counted_overlap() -> None:
    # of the 6 pairs from 1, 2, 3, 4 only (3, 4) has a larger sum than (2, 4)
    assert randomisation_p([2, 4], [1, 3]) == (2 / 6, 5 / 6)


def test_many_classes_are_drawn_and_reproducible() -> None:
    rare, others = list(range(50, 70)), list(range(50))
    more, less = randomisation_p(rare, others)
    # no draw of 9,999 comes near the largest of C(70, 20) sums, so only the one seen counts
    assert more == pytest.approx(1 / 10_000)
    assert less == 1.0
    assert randomisation_p(rare, others) == (more, less)
