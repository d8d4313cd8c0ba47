from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imbdyn.experiments.errors import ConfigError
from imbdyn.experiments.profiles import (
    Counts,
    Exponential,
    Natural,
    Profile,
    Step,
    Zipf,
    balanced,
    classes_by_rank,
    nearer_to_the_smallest,
    scarce,
    select,
)

CIFAR10 = [5000] * 10

#: Counts of LDAM's imbalance_cifar.py for CIFAR-10 by imbalance ratio, class 0 first.
LDAM_CIFAR10 = {
    10: [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500],
    50: [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100],
    100: [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50],
}
#: Sums of its counts for CIFAR-100.
LDAM_CIFAR100 = {10: 19_573, 20: 15_907, 50: 12_608, 100: 10_847, 200: 9_502}


@pytest.mark.parametrize("ratio", LDAM_CIFAR10)
def test_exponential_counts_are_those_of_ldams_code(ratio: int) -> None:
    profile = Exponential(ratio=ratio, rotate=False)
    assert profile.apply(CIFAR10, seed=3).counts == LDAM_CIFAR10[ratio]
    assert sum(profile.apply([500] * 100, seed=3).counts) == pytest.approx(LDAM_CIFAR100.get(ratio), abs=0)


@pytest.mark.parametrize(("ratio", "samples"), [(10, 27_500), (50, 25_500), (100, 25_250)])
def test_step_counts_are_those_of_ldams_code(ratio: int, samples: int) -> None:
    counts = Step(ratio=ratio, rotate=False).apply(CIFAR10, seed=0).counts
    assert counts == [5000] * 5 + [5000 // ratio] * 5
    assert sum(counts) == samples


def test_step_starts_from_the_smallest_class_and_cuts_the_rare_ones_only() -> None:
    chosen = Step(ratio=20.0, num_rare=2, rotate=False).apply([45, 40, 50, 41], seed=0)
    assert chosen == ([40, 40, 2, 2], [2, 3])
    assert Step(ratio=1.0).apply([40] * 4, seed=0).rare != [], "which are rare is known though all counts are equal"


def test_zipf_counts_are_powers_of_the_rank() -> None:
    chosen = Zipf(exponent=1.0, rotate=False).apply([60] * 6, seed=0)
    assert chosen.counts == [60, 30, 20, 15, 12, 10]
    assert Zipf(exponent=2.0, rotate=False).apply([3600] * 6, seed=0).counts == [3600, 900, 400, 225, 144, 100]
    assert chosen.rare == [2, 3, 4, 5], "at most sqrt(60 * 10) = 24.5"


def test_counts_are_taken_as_they_are_or_drawn() -> None:
    assert Counts(counts=(3, 9, 5), rotate=False).apply([10] * 3, seed=0).counts == [3, 9, 5]
    drawn = {tuple(Counts(counts=(3, 9, 5)).apply([10] * 3, seed=seed).counts) for seed in range(40)}
    assert len(drawn) == 6
    assert all(sorted(counts) == [3, 5, 9] for counts in drawn)


def test_natural_keeps_what_there_is() -> None:
    assert Natural().apply([284_315, 492], seed=5) == ([284_315, 492], [1])


@pytest.mark.parametrize("profile", [Step(ratio=10), Exponential(ratio=10), Zipf(exponent=1.0)])
def test_the_seed_draws_which_classes_are_rare(profile: Profile) -> None:
    drawn = [profile.apply(CIFAR10, seed) for seed in range(20)]
    assert len({tuple(chosen.counts) for chosen in drawn}) > 15
    assert len({tuple(sorted(chosen.counts)) for chosen in drawn}) == 1, "the counts are the same, on other classes"
    for chosen in drawn:
        common = [count for c, count in enumerate(chosen.counts) if c not in chosen.rare]
        assert max(chosen.counts[c] for c in chosen.rare) < min(common)
    assert profile.apply(CIFAR10, 3) == profile.apply(CIFAR10, 3)


def test_the_rarest_class_is_the_last_one_drawn() -> None:
    ranked = classes_by_rank(10, seed=7)
    counts = Exponential(ratio=100).apply(CIFAR10, seed=7).counts
    assert sorted(ranked) == list(range(10))
    assert sorted(range(10), key=lambda c: -counts[c]) == ranked
    assert Step(ratio=100, num_rare=1).apply(CIFAR10, seed=7).rare == ranked[-1:]


def test_rare_means_nearer_to_the_smallest_class_on_a_logarithmic_scale() -> None:
    assert nearer_to_the_smallest([100, 10, 11, 1]) == [1, 3]
    assert nearer_to_the_smallest([7, 7]) == []


def test_the_controls_are_balanced_at_the_largest_and_the_smallest_count() -> None:
    assert balanced([41, 45, 50], [41, 41, 2]) == [41, 41, 41]
    assert scarce([41, 41, 2]) == [2, 2, 2]
    assert balanced([900, 30], [900, 30]) == [30, 30], "of the rarest class there are no more"


@given(st.lists(st.integers(1, 500), min_size=2, max_size=20), st.floats(1.0, 1e4), st.integers(0, 100))
def test_no_profile_asks_for_more_than_there_is_or_for_nothing(available: list[int], ratio: float, seed: int) -> None:
    for profile in (Step(ratio=ratio), Exponential(ratio=ratio), Zipf(exponent=ratio / 1e3), Natural()):
        try:
            chosen = profile.apply(available, seed)
        except ConfigError:  # it does not fit, and says so
            continue
        for counts in (chosen.counts, balanced(available, chosen.counts), scarce(chosen.counts)):
            assert all(1 <= kept <= count for kept, count in zip(counts, available, strict=True))


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (lambda: Step(ratio=0.5), "imbalance.ratio must be at least 1, got 0.5"),
        (lambda: Step(ratio=2, fraction=1.0), "imbalance.fraction must be above 0 and below 1, got 1.0"),
        (lambda: Step(ratio=2, num_rare=3), "imbalance.num_rare must make 1 to 2 of the 3 classes rare, got 3"),
        (lambda: Step(ratio=2, fraction=0.9), "imbalance.fraction must make 1 to 2 of the 3 classes rare, got 3"),
        (lambda: Step(ratio=41), "imbalance.ratio must leave a rare class 1 of its 40 samples, got 41"),
        (lambda: Exponential(ratio=41), "gives the 3 classes 40, 6, 0"),
        (lambda: Zipf(exponent=9), "gives the 3 classes 40, 0, 0"),
        (lambda: Zipf(exponent=-1), "imbalance.exponent must be at least 0, got -1"),
        (lambda: Counts(counts=(1, 2)), r"imbalance.counts must be 3 numbers, a class each, got [1, 2]"),
        (lambda: Counts(counts=(1, 2, 0)), "imbalance.counts must be at least 1"),
        (lambda: Counts(counts=(1, 2, 41), rotate=False), "must leave class 2 at most its 40 samples, got 41"),
    ],
)
def test_a_profile_that_does_not_fit_is_one_sentence(profile, message) -> None:
    with pytest.raises(ConfigError) as error:
        profile().apply([40, 50, 40], seed=0)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


LABELS = torch.tensor([0] * 30 + [1] * 20 + [2] * 10)[torch.randperm(60, generator=torch.Generator().manual_seed(5))]


def test_selection_has_the_counts_asked_for() -> None:
    kept = select(LABELS, [3, 20, 0], seed=0)
    assert torch.bincount(LABELS[kept], minlength=3).tolist() == [3, 20, 0]
    assert kept.unique().numel() == 23


def test_selections_with_one_seed_are_nested() -> None:
    few, many = select(LABELS, [3, 3, 3], seed=0), select(LABELS, [30, 3, 10], seed=0)
    assert set(few.tolist()) < set(many.tolist())
    assert select(LABELS, [3, 3, 3], seed=1).tolist() != few.tolist()


def test_more_than_there_is_names_the_class() -> None:
    with pytest.raises(ValueError, match="class 2 has 10, not 11"):
        select(LABELS, [1, 1, 11], seed=0)
