"""Which rows a training leaves in the trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loops import CLASSES, monitored
from torch import Tensor, nn

import imbdyn
from imbdyn.trace import TraceWriter


@pytest.fixture
def trained(network: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path) -> imbdyn.Trace:
    """Two epochs of 5 steps, every 2nd step sampled, each followed by two evaluations."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with imbdyn.Monitor(network, optimizer, CLASSES, tmp_path / "run", interval=2) as monitor:
        for epoch in range(2):
            monitor.epoch = epoch
            for _ in range(5):
                with monitor.batch(labels):
                    F.cross_entropy(network(images), labels).backward()
                optimizer.step()
                optimizer.zero_grad()
            with torch.no_grad():
                for split in ("train_eval", "test"):
                    with monitor.evaluate(split):
                        for half in (slice(0, 10), slice(10, 24)):
                            with monitor.batch(labels[half]):
                                network(images[half])
    return imbdyn.open_trace(tmp_path / "run")


def test_windows_close_at_sampled_steps_and_at_the_end_of_an_epoch(trained: imbdyn.Trace) -> None:
    windows = trained.steps[trained.steps.split == "train"]
    assert windows[["since_step", "step", "epoch", "count"]].to_numpy().tolist() == [
        [0, 1, 0, 24],
        [1, 2, 0, 24],
        [2, 4, 0, 48],
        [4, 5, 0, 24],
        [5, 6, 1, 24],
        [6, 8, 1, 48],
        [8, 10, 1, 48],
    ]
    assert windows.sampled.tolist() == [True, True, True, False, True, True, True]
    assert windows.grad_norm.isna().tolist() == [not sampled for sampled in windows.sampled]
    assert (windows.lr == 0.1).all()
    assert (windows.step_seconds > 0).all()
    assert (windows.overhead_seconds > 0).all()


def test_a_window_closes_with_each_flush_so_that_little_dies_with_the_process(
    network: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TraceWriter.__init__.__kwdefaults__, "flush_seconds", 0.0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with imbdyn.Monitor(network, optimizer, CLASSES, tmp_path / "run", interval=1000) as monitor:
        for _ in range(40):
            with monitor.batch(labels):
                F.cross_entropy(network(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
        going_on = imbdyn.open_trace(tmp_path / "run")
        assert going_on.steps[["since_step", "step", "sampled"]].to_numpy().tolist() == [
            [0, 1, True],
            [1, 17, False],
            [17, 33, False],
        ]
        assert going_on.run["status"] == "running"
    assert going_on.steps["count"].tolist() == [24, 16 * 24, 16 * 24, 7 * 24]


def test_class_rows_of_a_window_and_absent_classes_are_null(trained: imbdyn.Trace) -> None:
    classes = trained.classes.set_index(["step", "split", "class_id"])
    assert classes.loc[(4, "train", 0)]["count"] == 24
    absent = classes.loc[(4, "train", 3)]
    assert absent["count"] == 0
    assert np.isnan([absent.loss, absent.accuracy, absent.margin, absent.confidence]).all()


def test_rates_are_those_of_the_logits(network: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    logits = network(images).detach().double()
    trace = monitored(network, [(images, labels)], tmp_path / "run")
    step = trace.steps.iloc[0]
    assert step.loss == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-6)
    assert step.accuracy == pytest.approx(float((logits.argmax(1) == labels).double().mean()))
    classes = trace.classes.set_index("class_id")
    for c in (0, 1, 2, 4):
        own = labels == c
        assert classes.loss[c] == pytest.approx(float(F.cross_entropy(logits[own], labels[own])), rel=1e-6)
        assert classes.accuracy[c] == pytest.approx(float((logits[own].argmax(1) == c).double().mean()))


def test_evaluations_have_the_last_step_and_all_their_batches(trained: imbdyn.Trace) -> None:
    evaluations = trained.steps[trained.steps.split != "train"]
    assert evaluations[["step", "split", "count", "batches"]].to_numpy().tolist() == [
        [5, "test", 24, 2],
        [5, "train_eval", 24, 2],
        [10, "test", 24, 2],
        [10, "train_eval", 24, 2],
    ]
    assert evaluations.sampled.isna().all()


def test_features_of_the_same_data_do_not_shift(trained: imbdyn.Trace) -> None:
    features = trained.class_features
    assert (features[features.split == "train_eval"].train_test_shift.isna()).all()
    np.testing.assert_allclose(features[features.split == "test"].train_test_shift.dropna(), 0, atol=1e-12)
    assert sorted(features.class_id.unique()) == [0, 1, 2, 4]
    assert (trained.features.layer == "head").all()
    assert trained.features.nc1.gt(0).all()


def test_the_classifier_has_a_row_a_class_and_step(trained: imbdyn.Trace) -> None:
    classifier = trained.classifier
    assert not classifier.duplicated(["step", "split", "class_id"]).any()
    steps = {split: sorted(rows.step.unique()) for split, rows in classifier.groupby("split")}
    assert steps == {"train": [1, 2, 4, 6, 8, 10], "train_eval": [5, 10], "test": [5, 10]}
    sampled, evaluated = classifier[classifier.split == "train"], classifier[classifier.split != "train"]
    assert sampled.row_update_norm.notna().all()
    assert sampled.cos_class_mean.isna().all()
    assert evaluated.row_update_norm.isna().all()
    assert (evaluated.groupby(["step", "split"]).cos_class_mean.count() == 4).all()
    norms = classifier[classifier.step == 10].pivot(index="class_id", columns="split", values="row_norm")
    np.testing.assert_allclose(norms["test"], norms["train"], rtol=1e-6)


def test_run_json_says_what_ran(trained: imbdyn.Trace) -> None:
    run = trained.run
    assert run["status"] == "finished"
    assert run["class_counts"] == [60, 35, 20, 0, 5], "the first epoch only"
    assert run["overhead"]["steps"] == 10
    assert run["overhead"]["sampled_steps"] == 6
    assert run["overhead"]["share"] > 0
    assert run["classifier"] == "head"
    assert run["problems"] == {}


def test_parameter_motion_is_that_of_the_step(
    network: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    trace = monitored(network, [(images, labels)], tmp_path / "run")
    rows = trace.parameters.set_index("parameter")
    for name, p in network.named_parameters():
        old, new = before[name].double().flatten(), p.detach().double().flatten()
        assert rows.weight_norm[name] == pytest.approx(float(new.norm()))
        assert rows.update_norm[name] == pytest.approx(float((new - old).norm()))
        assert rows.update_ratio[name] == pytest.approx(float((new - old).norm() / new.norm()))
        angle = float(torch.acos(old @ new / old.norm() / new.norm()))
        assert rows.rotation[name] == pytest.approx(angle, rel=1e-4, abs=1e-7)


def test_mixing_layers_are_listed_and_read_exactly(tmp_path: Path, images: Tensor, labels: Tensor) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, CLASSES))
    trace = monitored(model, [(images, labels)] * 3, tmp_path / "run")
    assert trace.run["mixing_layers"] == ["1"]
    assert trace.run["coverage"]["share"] == 1.0
    assert trace.parameters.residual.max() <= 1e-6


def test_what_is_not_covered_is_one_warning_and_null(tmp_path: Path, images: Tensor, labels: Tensor) -> None:
    class Tempered(nn.Module):
        """Its temperature is used in the loss only, where the rows are nobody's."""

        def __init__(self) -> None:
            super().__init__()
            self.temperature, self.head = nn.Parameter(torch.ones(1)), nn.Linear(72, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.flatten(1))

    model = Tempered()
    with pytest.warns(imbdyn.ImbdynWarning, match=r"cover 99\.7%.*not covered: temperature \(torch\.Tensor\.mul: "):
        trace = monitored(
            model,
            [(images, labels)] * 2,
            tmp_path / "run",
            criterion=lambda z, y: F.cross_entropy(z * model.temperature, y),
        )
    for name, about in trace.run["coverage"]["parameters"].items():
        assert about["covered"] == name.startswith("head")
        assert (about["reason"] is None) == about["covered"]
    hidden = trace.parameters.parameter == "temperature"
    assert hidden.sum() == 2
    assert (trace.parameters.residual.isna() == hidden).all()
    assert trace.parameters.grad_norm.notna().all(), "its norms are measured all the same"
    assert trace.run["problems"]["coverage"]["times"] == 1


def test_a_network_that_diverged_is_evaluated(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 3))
    torch.nn.init.constant_(model[0].bias, float("nan"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        imbdyn.Monitor(model, optimizer, 3, tmp_path / "run", on_error="raise") as monitor,
        monitor.evaluate("test"),
        torch.no_grad(),
        monitor.batch(torch.arange(6) % 3),
    ):
        model(torch.randn(6, 5))
    trace = imbdyn.open_trace(tmp_path / "run")
    assert trace.classes["count"].tolist() == [2, 2, 2]
    assert trace.classes["loss"].isna().all()
    assert trace.features[["nc1", "nc2_angle", "nc4"]].isna().all(axis=None)
    assert set(trace.findings()["name"]) >= {"nc1", "seli_rows", "late_overfit"}
