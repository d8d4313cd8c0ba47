"""Losses that were written down: how far they rise, where, and when nothing can be said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from findings.synthetic_traces import class_rows, write_rows

from imbdyn.findings import Finding
from imbdyn.findings.minority_initial_drop import minority_initial_drop
from imbdyn.findings.words import times


def drop(path: Path, losses: Sequence[tuple[int, list[float]]], split: str = "train_eval", since: int = 1) -> Finding:
    """Classes 0 (2 samples) and 1 (6 samples) are rare, class 2 (100 samples) is not."""
    counts = [2, 6, 100]
    rows = [
        class_rows(
            step,
            split,
            loss=loss,
            count=counts,
            accuracy=[0.5 if step == 0 else 0.0, 0.5 if step == 0 else 0.0, 1.0],
            since_step=step if split == "train_eval" else step - since,
        )
        for step, loss in losses
    ]
    return minority_initial_drop(write_rows(path, counts, rows, rare=[0, 1]))


def test_the_peak_is_told_by_samples_and_by_class(tmp_path: Path) -> None:
    found = drop(
        tmp_path / "run",
        [
            (0, [2.0, 2.0, 2.0]),
            (10, [4.0, 3.0, 1.0]),
            (20, [8.0, 4.0, 0.5]),
            (30, [1.0, 1.0, 0.1]),
            (40, [9.0, 9.0, 0.1]),
        ],
    )
    # (2 * 8 + 6 * 4) / 8 = 5; the rise at step 40 is no initial one
    assert found.value == pytest.approx(5 / 2)
    assert found.steps == (0, 20)
    assert found.by_class == {0: 4.0, 1: 2.0, 2: 0.25}
    assert found.effect_size == -0.5
    assert "rose to 2.50 times its start at step 20 (others 0.25 times), until 20" in found.sentence


def test_a_loss_that_falls_has_no_drop(tmp_path: Path) -> None:
    found = drop(tmp_path / "run", [(0, [2.0, 2.0, 2.0]), (10, [1.8, 1.8, 1.0]), (20, [4.0, 4.0, 0.1])])
    assert (found.value, found.steps) == (pytest.approx(0.9), None)
    assert "fell to 0.90 times its start by step 10" in found.sentence


def test_a_loss_that_never_comes_back_is_above_to_the_end(tmp_path: Path) -> None:
    found = drop(tmp_path / "run", [(0, [2.0, 2.0, 2.0]), (10, [6.0, 6.0, 1.0]), (20, [4.0, 4.0, 0.1])])
    assert (found.value, found.steps) == (3.0, (0, 20))
    assert found.sentence.endswith("and was still above it at 20, the last reading.")


def test_a_loss_that_is_no_number_is_no_peak(tmp_path: Path) -> None:
    found = drop(
        tmp_path / "run", [(0, [2.0, 2.0, 2.0]), (10, [np.nan, 3.0, 1.0]), (20, [4.0, 4.0, 1.0]), (30, [np.inf] * 3)]
    )
    assert (found.value, found.steps) == (2.0, (0, 20))


def test_windows_serve_if_the_first_is_that_of_step_one(tmp_path: Path) -> None:
    losses = [(1, [2.0, 2.0, 2.0]), (2, [3.0, 3.0, 1.0]), (3, [1.0, 1.0, 1.0])]
    found = drop(tmp_path / "a", losses, "train")
    assert found.value == 1.5
    assert found.sentence.endswith("until 2. Read from training windows, of other samples each time.")
    late = drop(tmp_path / "b", [(step + 4, loss) for step, loss in losses], "train", since=5)
    assert late.value is None
    assert "before the first step" in late.sentence


def test_without_rare_classes_there_is_no_minority(tmp_path: Path) -> None:
    found = minority_initial_drop(write_rows(tmp_path / "run", [500, 500], [class_rows(0, loss=[1.0, 1.0])]))
    assert found.value is None
    assert "No classes to compare" in found.sentence


def test_a_loss_that_explodes_is_told_in_powers_of_ten() -> None:
    assert [times(value) for value in (0.5, 999.0, 2.7407e22)] == ["0.50", "999.00", "2.74e+22"]
