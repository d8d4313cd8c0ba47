from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from findings.synthetic_traces import write_trace

from imbdyn.findings.recall import area_between, epoch_learned, held_out_split, recall_curves, train_split
from imbdyn.trace import TraceWriter, open_trace


def test_windows_of_an_epoch_are_weighted_by_their_counts(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "run")
    for step, count, accuracy in ((1, 3, 1 / 3), (2, 1, 1.0), (3, 0, None)):
        writer.append(
            "classes",
            step=step,
            since_step=step - 1,
            epoch=1,
            split="train",
            class_id=0,
            count=count,
            accuracy=accuracy,
        )
    writer.close("finished")
    curves, counts = recall_curves(open_trace(tmp_path / "run"), "train")
    assert curves.loc[1, 0] == pytest.approx(2 / 4)
    assert counts.loc[1, 0] == 4


def test_last_evaluation_of_an_epoch_counts(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "run")
    for step, accuracy in ((5, 0.25), (9, 0.75)):
        writer.append(
            "classes", step=step, since_step=step, epoch=2, split="test", class_id=0, count=8, accuracy=accuracy
        )
    writer.close("finished")
    curves, _ = recall_curves(open_trace(tmp_path / "run"), "test")
    assert curves[0].to_dict() == {2: 0.75}


def test_absent_class_has_no_recall(tmp_path: Path) -> None:
    curves, _ = recall_curves(write_trace(tmp_path / "run", [4, 0], [[1.0, 1.0], [np.nan, np.nan]]), "train_eval")
    assert curves[0].tolist() == [1.0, 1.0]
    assert curves[1].isna().all()


def test_null_is_no_recall_of_zero(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "run")
    key = {"since_step": 1, "epoch": 1, "split": "train", "class_id": [0, 1], "count": 2}
    writer.append("classes", step=1, **key, accuracy=np.ma.masked_array([1.0, 0.0], [False, True]))
    writer.close("finished")
    curves, counts = recall_curves(open_trace(tmp_path / "run"), "train")
    assert curves.loc[1, 0] == 1.0
    assert np.isnan(curves.loc[1, 1])
    assert counts.loc[1].tolist() == [2, 0]


def test_trace_without_rows_has_no_curves(tmp_path: Path) -> None:
    TraceWriter(tmp_path / "run").close("failed")
    curves, counts = recall_curves(open_trace(tmp_path / "run"), "train")
    assert curves.empty
    assert counts.empty


def test_rows_without_epoch_are_left_out(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "run")
    writer.append("classes", step=1, since_step=0, epoch=None, split="train", class_id=[0, 1], count=2, accuracy=1.0)
    writer.close("finished")
    assert recall_curves(open_trace(tmp_path / "run"), "train")[0].empty


def test_half_is_learned_and_less_is_not() -> None:
    assert epoch_learned(pd.Series([0.2, 0.499, 0.5, 0.1], index=[1, 2, 3, 4])) == 3.0


def test_never_learned_is_none() -> None:
    assert epoch_learned(pd.Series([0.0, np.nan, 0.49], index=[1, 2, 3])) is None


def test_area_is_the_mean_difference_and_positive_if_rare_classes_lag() -> None:
    curves = pd.DataFrame({0: [0.0, 0.5], 1: [0.2, 0.5], 2: [1.0, 1.0]})
    assert area_between(curves, rare=[0, 1], others=[2]) == pytest.approx((0.9 + 0.5) / 2)


def test_train_eval_is_preferred_to_windows_and_test_to_other_names(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "a", [1, 1], [[1.0], [1.0]], [1.0, 1.0])
    assert (train_split(trace), held_out_split(trace)) == ("train_eval", "test")
    trace = write_trace(tmp_path / "b", [1, 1], [[1.0], [1.0]], [1.0, 1.0], split="train", held_out="val")
    assert (train_split(trace), held_out_split(trace)) == ("train", "val")
    assert held_out_split(write_trace(tmp_path / "c", [1, 1], [[1.0], [1.0]])) is None
