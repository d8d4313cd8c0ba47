"""What all phenomena have in common: they say what a trace lacks, and do not stumble over what it holds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from findings.synthetic_traces import write_rows

from imbdyn.findings import PHENOMENA, Finding, findings, phenomena, single
from imbdyn.trace import Trace, open_trace
from imbdyn.trace.schema import TABLES

Measure = Callable[[Trace], Finding]


def everything(path: Path, classes: int, value: Any, *, rare: Sequence[int] | None = None, pairs: bool = True) -> Trace:
    """Two steps and three evaluations in which every column that is no key has the same value."""
    a, b = np.triu_indices(classes, 1)
    number = {"class_id": np.arange(classes), "class_a": a, "class_b": b}
    rows = []
    for step, split in ((0, "train_eval"), (0, "test"), (1, "train"), (2, "train"), (2, "train_eval"), (2, "test")):
        for name, table in TABLES.items():
            in_training = "split" not in table.key
            if (in_training and split != "train") or (not pairs and name.endswith("pairs")):
                continue
            if name in ("features", "class_features", "class_feature_pairs") and split == "train":
                continue
            columns: dict[str, Any] = {column: number[column] for column in table.key if column in number}
            for column in table.columns:
                if column.name == "count":
                    columns["count"] = 3
                elif column.name not in table.key and str(column.type) == "double":
                    columns[column.name] = value
            known = {"step": step, "since_step": max(step - 1, 0), "epoch": step, "split": split, "layer": "head"}
            known |= {"parameter": "*", "predicted": 1}
            columns |= {key: known[key] for key in known if key in {column.name for column in table.columns}}
            if name == "classes":
                columns["since_step"] = step - 1 if split == "train" else step
            if not columns.keys() & number.keys():
                columns["step"] = [step]
            rows.append((name, columns))
    return write_rows(path, [2] * (classes // 2) + [200] * (classes - classes // 2), rows, rare=rare)


def check(found: Finding, name: str) -> None:
    """A finding is whole: a sentence, numbers that are numbers, and JSON that any reader takes."""
    assert found.name == name
    assert found.kind == "phenomenon"
    assert found.verdict is None
    assert found.sentence.endswith(".")
    assert "nan" not in found.sentence.lower()
    assert "inf" not in found.sentence.lower()
    for number in (found.value, found.lower, found.upper, found.p_value, found.null, found.effect_size):
        assert number is None or math.isfinite(number)
    json.dumps(asdict(found), allow_nan=False)
    if found.value is not None:
        assert found.unit
        assert found.compared_with


@pytest.mark.parametrize("measure", PHENOMENA, ids=lambda measure: measure.__name__)
class TestEvery:
    def test_an_empty_trace_is_told_so(self, tmp_path: Path, measure: Measure) -> None:
        found = measure(write_rows(tmp_path / "run", [2, 200], [], rare=[0]))
        check(found, measure.__name__)
        assert found.value is None

    def test_a_column_that_is_null_throughout_is_as_one_that_lacks(self, tmp_path: Path, measure: Measure) -> None:
        # the reader gives a column that a part does not have as null
        found = measure(everything(tmp_path / "run", 4, None, rare=[0, 1]))
        check(found, measure.__name__)
        assert found.value is None or measure.__name__ == "initial_guess"

    @pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
    def test_values_that_are_no_numbers_or_zero(self, tmp_path: Path, measure: Measure, value: float) -> None:
        check(measure(everything(tmp_path / "run", 4, value, rare=[0, 1])), measure.__name__)

    def test_a_trace_with_everything_has_a_value(self, tmp_path: Path, measure: Measure) -> None:
        found = measure(everything(tmp_path / "run", 4, 0.5, rare=[0, 1]))
        check(found, measure.__name__)
        assert found.value is not None or measure.__name__ in ("first_order_rise", "classifier_norms", "noise_scale")

    @pytest.mark.parametrize("value", [0.5, None])
    def test_a_single_class(self, tmp_path: Path, measure: Measure, value: float | None) -> None:
        check(measure(everything(tmp_path / "run", 1, value)), measure.__name__)

    def test_no_class_is_rare(self, tmp_path: Path, measure: Measure) -> None:
        check(measure(everything(tmp_path / "run", 4, 0.5, rare=[])), measure.__name__)

    def test_classes_without_pairs(self, tmp_path: Path, measure: Measure) -> None:
        found = measure(everything(tmp_path / "run", 4, 0.5, rare=[0, 1], pairs=False))
        check(found, measure.__name__)
        if measure.__name__ in ("minority_collapse", "seli_rows", "seli_means"):
            assert found.value is None
            assert "up to 100 classes" in found.sentence


def test_a_thousand_classes_are_measured(tmp_path: Path) -> None:
    trace = everything(tmp_path / "run", 1000, 0.5, rare=list(range(500)), pairs=False).frozen()
    for found in phenomena(trace):
        check(found, found.name)
        if found.name in ("nc1", "noise_scale", "feature_drift", "initial_guess"):
            assert found.by_class is None or len(found.by_class) == 1000


def test_all_are_in_the_frame_with_their_fields(tmp_path: Path) -> None:
    trace = everything(tmp_path / "run", 4, 0.5, rare=[0, 1])
    frame = findings(trace)
    names = [finding.name for finding in single(trace)] + [measure.__name__ for measure in PHENOMENA]
    assert frame["name"].tolist() == names
    assert len(set(names)) == len(names)
    assert set(frame.columns) == set(asdict(single(trace)[0]))


def test_several_traces_have_all_findings_of_each(tmp_path: Path) -> None:
    for name, value in (("a", 0.5), ("b", 0.25)):
        everything(tmp_path / name, 4, value, rare=[0, 1])
    frame = open_trace([tmp_path / "a", tmp_path / "b"]).findings()
    assert frame["run"].value_counts().to_dict() == dict.fromkeys("ab", 3 + len(PHENOMENA))
    assert frame[frame["name"] == "nc2"]["value"].tolist() == [0.5, 0.25]


def test_runs_beside_it_give_their_values(tmp_path: Path) -> None:
    trace = everything(tmp_path / "a", 4, 0.5, rare=[0, 1])
    beside = {"b": everything(tmp_path / "b", 4, 0.25, rare=[0, 1]), "c": write_rows(tmp_path / "c", [2, 9], [])}
    found = {finding.name: finding for finding in phenomena(trace, beside)}
    assert found["nc2"].value == 0.5
    assert found["nc2"].beside == {"b": 0.25, "c": None}
