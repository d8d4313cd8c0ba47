from pathlib import Path

import pytest
from findings.synthetic_traces import class_rows, write_rows, write_trace

from imbdyn.findings import alike_when_balanced, early_underfit, findings
from imbdyn.findings.groups import class_counts, class_names, groups, is_balanced, nothing_to_compare, shown_groups


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


def test_a_class_without_training_samples_is_in_no_group(tmp_path: Path) -> None:
    counts, curves = [500, 200, 19, 0], [[1.0, 1.0]] * 3 + [[0.0, 0.0]]
    trace = write_trace(tmp_path / "run", counts, curves, [1.0, 1.0, 0.5, 0.0])
    found = groups(trace)
    assert (found.rare, found.others) == ([2], [0, 1])
    assert found.rule == "few-shot, fewer than 20 samples (Liu et al. 2019); classes without any are left out (1)"
    assert [classes for _, classes in shown_groups(trace)] == [[2], [0, 1], [3]]
    assert shown_groups(trace)[-1][0] == "unseen, none"
    sentences = findings(trace).set_index("name")["sentence"]
    assert "a gap of 0.50 against 0.00 of the others" in sentences["late_overfit"]
    everyone = write_trace(tmp_path / "none", [500, 200, 0], [[1.0]] * 3)
    assert groups(everyone).rare == []
    told = findings(everyone).set_index("name")["sentence"]
    said = (
        'No classes to compare; rare: no class, as all are many-shot; Monitor config={"rare_classes": [...]} names some'
        "; classes without any are left out (1)."
    )
    assert told["minority_initial_drop"] == told["area_between_curves"] == said


def test_equal_counts_as_drawn_tell_how_those_of_the_data_are_given(tmp_path: Path) -> None:
    drawn = write_trace(tmp_path / "drawn", [330, 340], [[1.0]] * 2)
    assert 'give Monitor config={"class_counts": [...]}' in str(nothing_to_compare(drawn))
    known = write_trace(tmp_path / "known", [330, 340], [[1.0]] * 2, config={"class_counts": [330, 340]})
    said = "The classes of this run have counts that are alike (330 to 340), so it says nothing on imbalance."
    assert nothing_to_compare(known) == said
    equal = write_trace(tmp_path / "equal", [330, 330], [[1.0]] * 2)
    assert "have equal counts" in str(nothing_to_compare(equal))
    given = write_trace(tmp_path / "given", [330, 340], [[1.0]] * 2, config={"class_counts": [660, 10]})
    assert nothing_to_compare(given) is None
    assert groups(given).rare == [1]


def test_unequal_classes_of_one_shot_group_are_told_how_to_be_named(tmp_path: Path) -> None:
    fraud = write_trace(tmp_path / "fraud", [35820, 180], [[1.0], [0.0]])
    assert 'Monitor config={"rare_classes": [...]} names some' in str(nothing_to_compare(fraud))
    assert groups(write_trace(tmp_path / "equal", [180, 180], [[1.0]] * 2)).rule == "no class, as all are many-shot"


def test_counts_of_a_run_that_does_not_say_its_epochs_are_told_as_such(tmp_path: Path) -> None:
    # 25 epochs of 120 and 6 samples, counted together
    rows = [class_rows(25, "train", since_step=0, accuracy=[1.0, 0.5], count=[3000, 150])]
    trace = write_rows(tmp_path / "run", [3000, 150], rows)
    said = "; counts are of the whole run, as monitor.epoch was not set"
    assert groups(trace).rule.endswith(said)
    assert said in findings(trace).set_index("name")["sentence"]["early_underfit"]
    named = write_rows(tmp_path / "named", [3000, 150], rows, rare=[1])
    assert early_underfit(named).sentence == "No train recall by epoch: set monitor.epoch."
    alike = write_rows(tmp_path / "alike", [3000, 3000], rows)
    assert alike_when_balanced(alike).sentence == "No train recall by epoch: set monitor.epoch."


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


@pytest.mark.parametrize("named", ["cat", ["cat", "dog"], [0, 7], [-1], {"cat": 1}, 3, [0.5], [True]])
def test_a_users_own_rare_classes_of_another_kind_are_not_read(tmp_path: Path, named: object) -> None:
    trace = write_trace(tmp_path / "run", [500, 5], [[1.0]] * 2, config={"rare_classes": named})
    assert groups(trace).rare == [1]
    assert len(trace.findings()) > 20


@pytest.mark.parametrize("counts", ["abc", {"cat": 5, "dog": 3}, [5], [5, "x"], [1, -1], 7])
def test_a_users_own_class_counts_of_another_kind_are_not_read(tmp_path: Path, counts: object) -> None:
    trace = write_trace(tmp_path / "run", [500, 5], [[1.0]] * 2, config={"class_counts": counts})
    assert class_counts(trace) == [500, 5]


def test_a_name_that_is_empty_is_the_class_id(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "run", [500, 5, 5], [[1.0]] * 3, class_names=["cat", "", " "])
    assert class_names(trace) == ["cat", "class 1", "class 2"]


def test_a_name_turns_no_text_around(tmp_path: Path) -> None:
    names = ["\u202elive", "\u2066", "\u0639\u0631\u0628\u064a"]
    trace = write_trace(tmp_path / "run", [500, 5, 5], [[1.0]] * 3, class_names=names)
    assert class_names(trace) == ["live", "class 1", names[2]]
