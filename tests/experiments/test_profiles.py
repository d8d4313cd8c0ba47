from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imbdyn.experiments.profiles import balanced, choose_rare, scarce, select, step


def test_balanced_keeps_the_smallest_count() -> None:
    assert balanced([7, 5, 9]) == [5, 5, 5]


def test_step_cuts_the_rare_classes_only() -> None:
    assert step([40, 45, 50], 20.0, [0, 2]) == [2, 40, 2]


def test_scarce_is_balanced_and_as_small_as_the_rare_classes_of_step() -> None:
    counts = [41, 45, 50]
    assert scarce(counts, 20.0) == [step(counts, 20.0, [0])[0]] * 3 == [2, 2, 2]


@given(st.lists(st.integers(1, 500), min_size=2, max_size=20), st.floats(1.0, 1e6))
def test_no_profile_asks_for_more_than_there_is_or_for_nothing(counts: list[int], ratio: float) -> None:
    for profile in (balanced(counts), step(counts, ratio, [0]), scarce(counts, ratio)):
        assert all(1 <= kept <= count for kept, count in zip(profile, counts, strict=True))


def test_seeds_choose_different_rare_classes() -> None:
    chosen = {tuple(choose_rare(10, 5, seed)) for seed in range(20)}
    assert len(chosen) > 10
    assert all(len(set(classes)) == 5 and min(classes) >= 0 and max(classes) <= 9 for classes in chosen)
    assert choose_rare(10, 5, 3) == choose_rare(10, 5, 3)


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
