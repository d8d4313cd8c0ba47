"""Classifier norms, feature drift and the area between learning curves in closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from findings.synthetic_traces import class_rows, curve_reaching, write_rows, write_trace

from imbdyn.findings.area_between_curves import area_between_curves
from imbdyn.findings.classifier_norms import classifier_norms
from imbdyn.findings.feature_drift import feature_drift


def norms(step: int, values: list[float], split: str = "train") -> tuple[str, dict[str, Any]]:
    return "classifier", {"step": step, "split": split, "class_id": np.arange(len(values)), "row_norm": values}


class TestClassifierNorms:
    def test_the_last_rows_are_correlated_with_the_counts(self, tmp_path: Path) -> None:
        rows = [norms(1, [9.0, 1.0, 1.0, 1.0]), norms(4, [1.0, 2.0, 3.0, 5.0]), norms(4, [1.0, 2.0, 3.0, 5.0], "test")]
        found = classifier_norms(write_rows(tmp_path / "run", [5, 10, 20, 200], rows, rare=[0, 1]))
        assert (found.value, found.p_value) == (pytest.approx(1), pytest.approx(2 / 24))
        assert found.effect_size == pytest.approx(1.5 / 4)
        assert (found.by_class, found.steps) == ({0: 1.0, 1: 2.0, 2: 3.0, 3: 5.0}, (4, 4))

    def test_equal_counts_have_no_correlation(self, tmp_path: Path) -> None:
        found = classifier_norms(write_rows(tmp_path / "run", [9, 9], [norms(1, [1.0, 2.0])], rare=[0]))
        assert (found.value, found.effect_size) == (None, 0.5)
        assert "rare classes' rows have norm 1.00, the others' 2.00" in found.sentence

    def test_rows_of_a_network_that_diverged_are_told_from_none(self, tmp_path: Path) -> None:
        diverged = write_rows(tmp_path / "nan", [5, 50], [norms(1, [np.nan, np.nan])], rare=[0])
        assert classifier_norms(diverged).sentence == "No rows of the classifier: the last ones are not finite."
        assert "if it is a linear layer" in classifier_norms(write_rows(tmp_path / "none", [5, 50], [])).sentence


class TestFeatureDrift:
    def rows(self, step: int, split: str, **columns: Any) -> tuple[str, dict[str, Any]]:
        return "class_features", {"step": step, "split": split, "layer": "head", "class_id": [0, 1], **columns}

    def test_drift_is_taken_out_of_the_ratio_by_hand(self, tmp_path: Path) -> None:
        rows = [
            self.rows(7, "train_eval", count=[2, 100], within_var=[4.0, 4.0]),
            self.rows(7, "test", count=[4, 100], within_var=[2.0, 4.0], train_test_shift=[3.0, 3.0]),
        ]
        rows += [class_rows(7, split, accuracy=[1.0, 1.0]) for split in ("train_eval", "test")]
        found = feature_drift(write_rows(tmp_path / "run", [2, 100], rows, rare=[0]))
        assert (found.value, found.null, found.by_class) == (3.0, 1.0, {0: 3.0, 1: 3.0})
        # nulls 4/2 + 2/4 and 4/100 + 4/100: at an equal ratio, few samples mean more drift
        assert found.effect_size == pytest.approx(2 * 2.5 / 3 - 2 * 0.08 / 4)
        assert found.steps == (7, 7)

    def test_without_training_features_at_the_step_there_is_none(self, tmp_path: Path) -> None:
        rows = [
            self.rows(5, "train_eval", count=[2, 9], within_var=[4.0, 4.0]),
            self.rows(7, "test", count=[4, 9], within_var=[2.0, 4.0]),
        ]
        rows += [class_rows(7, split, accuracy=[1.0, 1.0]) for split in ("train_eval", "test")]
        found = feature_drift(write_rows(tmp_path / "run", [2, 9], rows, rare=[0]))
        assert found.value is None
        assert '"train_eval"' in found.sentence


class TestAreaBetweenCurves:
    def test_the_area_is_the_share_of_epochs_between_the_steps(self, tmp_path: Path) -> None:
        curves = [curve_reaching(16, 20)] * 2 + [curve_reaching(6, 20)] * 2
        found = area_between_curves(
            write_trace(tmp_path / "run", [5, 5, 50, 50], curves, config={"rare_classes": [0, 1]})
        )
        assert found.value == pytest.approx(10 / 20)
        assert found.by_class == pytest.approx({0: 0.25, 1: 0.25, 2: 0.75, 3: 0.75})
        assert (found.effect_size, found.p_value) == (-1.0, pytest.approx(2 / 6))
        assert found.steps == (60, 150), "epochs 6 to 15, of ten steps each"

    def test_rare_classes_that_are_learned_first_have_a_negative_area(self, tmp_path: Path) -> None:
        curves = [curve_reaching(1, 4), curve_reaching(3, 4)]
        found = area_between_curves(write_trace(tmp_path / "run", [5, 50], curves, config={"rare_classes": [0]}))
        assert (found.value, found.steps) == (-0.5, None)
