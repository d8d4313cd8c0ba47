from pathlib import Path

import pytest
from findings.synthetic_traces import write_trace

from imbdyn.findings.groups import class_counts, groups, is_balanced


@pytest.mark.parametrize(
    ("counts", "rare"),
    [
        ([500, 100, 20, 19], [3]),
        ([500, 101, 100, 20], [2, 3]),
        ([100, 20], []),
        ([5000, 500], []),
        ([30, 5], [1]),
        ([10, 3], []),
    ],
    ids=["few-shot", "medium-shot", "all-medium", "all-many", "medium-and-few", "all-few"],
)
def test_rare_are_the_lowest_of_several_shot_groups(tmp_path: Path, counts: list[int], rare: list[int]) -> None:
    found = groups(write_trace(tmp_path / "run", counts, [[1.0]] * len(counts)))
    assert found.rare == rare
    assert sorted(found.rare + found.others) == list(range(len(counts)))


def test_configuration_decides_which_classes_are_rare(tmp_path: Path) -> None:
    found = groups(write_trace(tmp_path / "run", [500, 5, 500], [[1.0]] * 3, config={"rare_classes": [2, 0]}))
    assert (found.rare, found.others) == ([0, 2], [1])


def test_a_configuration_of_another_kind_is_no_trouble(tmp_path: Path) -> None:
    assert groups(write_trace(tmp_path / "run", [500, 5], [[1.0]] * 2, config={"lr": 0.1})).rare == [1]


def test_counts_of_a_run_that_was_killed_come_from_its_first_epoch(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "run", [40, 2], [[1.0, 1.0]] * 2, split="train", class_counts=None)
    assert class_counts(trace) == [40, 2]


@pytest.mark.parametrize(("counts", "balanced"), [([30, 20], True), ([31, 20], False), ([5, 0], False)])
def test_counts_are_balanced_up_to_half_as_many_again(tmp_path: Path, counts: list[int], balanced: bool) -> None:
    assert is_balanced(write_trace(tmp_path / "run", counts, [[1.0]] * 2)) is balanced
