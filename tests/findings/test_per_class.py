from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from findings.synthetic_traces import curve_reaching, write_trace

from imbdyn.findings import per_class
from imbdyn.findings.per_class import gradient_shares, group_shares, per_group
from imbdyn.trace import TraceWriter, open_trace


def test_every_column_of_a_known_trace(tmp_path: Path) -> None:
    trace = write_trace(
        tmp_path / "run",
        [200, 5],
        [curve_reaching(1, 20), [0.0] * 19 + [0.25]],
        [0.9, 0.1],
        class_names=["cat", "axolotl"],
    )
    frame = per_class(trace)
    assert frame["name"].tolist() == ["cat", "axolotl"]
    assert frame["rare"].tolist() == [False, True]
    assert frame["count"].tolist() == [200, 5]
    assert frame["epoch_learned"].tolist() == [1.0, pd.NA]
    assert frame["train_recall"].tolist() == [1.0, 0.25]
    assert frame["test_recall"].tolist() == [0.9, 0.1]
    assert frame["gap"].tolist() == pytest.approx([0.1, 0.15])
    # '*' has the epoch as norm: the first and the last two of 20 sampled steps
    assert frame["grad_norm_early"].tolist() == [1.5, 1.5]
    assert frame["grad_norm_late"].tolist() == [19.5, 19.5]
    assert frame["row_norm"].tolist() == pytest.approx([0.2, 1.2])


def test_what_a_trace_does_not_have_is_missing(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "run")
    writer.update_run(num_classes=2, class_names=["a", "b"], class_counts=None, config=None)
    writer.close("failed")
    frame = per_class(open_trace(tmp_path / "run"))
    assert frame["count"].tolist() == [0, 0]
    assert frame.drop(columns=["name", "rare", "count"]).isna().all(axis=None)


def test_a_class_that_is_absent_from_the_late_steps_has_no_late_norm(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "run")
    writer.update_run(num_classes=2, class_names=["a", "b"], class_counts=[9, 1], config=None)
    writer.append("class_gradients", step=1, parameter="*", class_id=[0, 1], count=1, grad_norm=[2.0, 3.0])
    writer.append("class_gradients", step=9, parameter="*", class_id=0, count=1, grad_norm=4.0)
    writer.close("finished")
    frame = per_class(open_trace(tmp_path / "run"))
    assert frame["grad_norm_early"].tolist() == [2.0, 3.0]
    assert frame["grad_norm_late"].iloc[0] == 4.0
    assert np.isnan(frame["grad_norm_late"].iloc[1])


def test_shares_of_groups_are_sums_and_other_numbers_means(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "run")
    writer.update_run(num_classes=3, class_names=["a", "b", "c"], class_counts=[90, 30, 3], config=None)
    key = {"parameter": "*", "count": 1}
    values = {"grad_norm": [2.0, 4.0, 1.0], "grad_share": [0.5, 0.75, -0.25]}
    writer.append("class_gradients", **key, step=1, class_id=[0, 1, 2], **values)
    writer.append("class_gradients", **key, step=9, class_id=[0, 2], grad_norm=2.0, grad_share=[0.25, 0.75])
    writer.append("class_gradients", step=9, parameter="head", class_id=1, count=1, grad_share=99.0)
    writer.close("finished")
    trace = open_trace(tmp_path / "run")
    groups = {"big": [0, 1], "small": [2]}
    frame = per_group(trace, groups)
    assert frame["count"].tolist() == [60, 3]
    assert frame["rare"].tolist() == [False, True]
    assert frame["grad_norm_early"].tolist() == [3.0, 1.0]
    assert frame["grad_share_early"].tolist() == [1.25, -0.25]
    assert frame["grad_share_late"].tolist() == [0.25, 0.75]
    assert np.isnan(frame["grad_norm_late"].astype(float)["big"])  # class b has none
    assert group_shares(gradient_shares(trace), groups).index.tolist() == [1, 9]


def test_a_step_without_shares_gives_groups_none(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "run")
    writer.update_run(num_classes=2, class_names=["a", "b"], class_counts=[9, 1], config=None)
    writer.append("class_gradients", step=1, parameter="*", class_id=[0, 1], count=1, grad_norm=0.0)
    writer.close("finished")
    frame = per_group(open_trace(tmp_path / "run"), {"all": [0, 1]})
    assert frame["grad_norm_early"].tolist() == [0.0]
    assert np.isnan(frame["grad_share_early"]["all"])


def test_the_gap_is_taken_where_train_and_test_are_both_known(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "run")
    writer.update_run(num_classes=2, class_names=["a", "b"], class_counts=[9, 1], config=None)
    for epoch, split, recall in ((1, "train", 0.75), (1, "test", 0.5), (2, "train", 1.0)):
        key = {"step": epoch, "since_step": epoch, "epoch": epoch, "split": split, "class_id": [0, 1]}
        writer.append("classes", **key, count=4, accuracy=recall)
    writer.close("interrupted")
    frame = per_class(open_trace(tmp_path / "run"))
    assert frame["train_recall"].tolist() == [1.0, 1.0]
    assert frame["test_recall"].tolist() == [0.5, 0.5]
    assert frame["gap"].tolist() == [0.25, 0.25]
