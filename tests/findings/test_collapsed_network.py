"""A network that has collapsed onto a simplex, watched by a Monitor: every measure of it is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from findings.synthetic_traces import write_rows
from torch import nn

import imbdyn
from imbdyn.findings import Finding, findings
from imbdyn.findings.neural_collapse import nc1
from imbdyn.trace import Trace

K, D, SAMPLES = 6, 9, 4


def collapsed(path: Path, spread: float = 0.0, splits: Sequence[str] = ("train_eval", "test")) -> Trace:
    """A linear classifier on features that are its own rows (give or take `spread`), before the first step."""
    frame = np.eye(K) - 1 / K
    rows = frame @ np.linalg.qr(np.random.default_rng(0).standard_normal((D, K)))[0].T
    model = nn.Sequential(nn.Linear(D, K, bias=False)).double()
    model[0].weight.data = torch.from_numpy(rows)
    y = torch.arange(K).repeat_interleave(SAMPLES)
    noise = torch.randn(len(y), D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = 7 * torch.from_numpy(rows)[y] + spread * noise
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    config = {"rare_classes": [0, 1], "class_counts": [SAMPLES] * K}
    with imbdyn.Monitor(model, optimizer, num_classes=K, out=path, interval=1, config=config) as monitor:
        for split in splits:
            with monitor.evaluate(split), monitor.batch(y), torch.no_grad():
                model(x)
        monitor.epoch = 1
        with monitor.batch(y):
            nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return imbdyn.open_trace(path)


def by_name(trace: Trace) -> dict[str, Finding]:
    return {row.name_: row for row in findings(trace).rename(columns={"name": "name_"}).itertuples()}


def test_a_collapsed_network_is_known_in_every_measure(tmp_path: Path) -> None:
    trace = collapsed(tmp_path / "run")
    found = by_name(trace)
    for name in ("nc1", "nc2", "nc3", "nc4", "seli_rows", "seli_means"):
        assert found[name].value == pytest.approx(0, abs=1e-7), name
        assert found[name].steps == (0, 0)
        assert np.isnan(found[name].null), "0 is where the phenomenon is, not where it is absent"
    assert list(found["nc1"].by_class.values()) == pytest.approx([0.0] * K, abs=1e-12)
    assert list(found["nc3"].by_class.values()) == pytest.approx([1.0] * K)
    assert found["minority_collapse"].value == pytest.approx(-1 / (K - 1))
    assert found["initial_guess"].value == pytest.approx(0, abs=1e-12)
    # G_c is (p - e_c) outer the features of c, each a simplex: the cosine of two classes is the product of two -1/(K-1)
    pairs = trace.class_gradient_pairs
    np.testing.assert_allclose(pairs.grad_cos, 1 / (K - 1) ** 2, rtol=1e-5)
    assert (found["gradient_conflict"].value, found["gradient_conflict"].null) == (0, 0)
    assert found["gradient_conflict"].effect_size == pytest.approx(0, abs=1e-6)
    assert found["gradient_ratio"].value == pytest.approx(1), "at equal counts the biases are stationary"
    # samples of one class are equal: no noise
    assert found["noise_scale"].value == pytest.approx(0, abs=1e-6)


def test_nc1_is_the_weighted_sum_of_that_of_the_classes(tmp_path: Path) -> None:
    trace = collapsed(tmp_path / "run", spread=1.0)
    whole, classes = trace.features.iloc[0], trace.class_features[trace.class_features.split == "train_eval"]
    assert whole.nc1 > 0.01
    assert (classes.nc1 * classes["count"]).sum() / classes["count"].sum() == pytest.approx(whole.nc1)
    assert by_name(trace)["nc1"].by_class == pytest.approx(dict(zip(classes.class_id, classes.nc1, strict=True)))


def test_features_of_other_data_than_the_training_data_are_told_as_such(tmp_path: Path) -> None:
    measures = ("nc1", "nc2", "nc3", "nc4", "seli_means")
    of_test, of_both = by_name(collapsed(tmp_path / "test", splits=["test"])), by_name(collapsed(tmp_path / "both"))
    assert [name for name in measures if " on test" in of_test[name].sentence] == list(measures)
    assert not [name for name in measures if " on test" in of_both[name].sentence]


def test_equal_training_and_test_data_do_not_drift(tmp_path: Path) -> None:
    found = by_name(collapsed(tmp_path / "run", spread=1.0))["feature_drift"]
    assert found.value == pytest.approx(0, abs=1e-12)
    # -null / mean variance, null = (v + v) / n
    assert found.by_class == pytest.approx(dict.fromkeys(range(K), 0.0), abs=1e-12)
    assert "by variance -0.50, others -0.50" in found.sentence


def test_a_class_of_one_sample_has_no_spread_of_its_own(tmp_path: Path) -> None:
    key = {"step": 1, "split": "train_eval", "layer": "head"}
    rows = [
        ("features", {**key, "count": [11], "nc1": [0.5], "nc1_sample": [0.6]}),
        ("class_features", {**key, "class_id": [0, 1, 2], "count": [6, 4, 1], "nc1": [0.25, 0.75, 0.0]}),
    ]
    found = nc1(write_rows(tmp_path / "run", [6, 4, 1], rows, rare=[1, 2]))
    assert found.by_class == {0: 0.25, 1: 0.75}
    assert "by class 0.5); of rare classes 0.75, of others 0.25" in found.sentence
