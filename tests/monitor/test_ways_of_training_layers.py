"""Layers that come and go: frozen, unfrozen, in eval mode, used in some steps only, evaluations in between."""

from __future__ import annotations

from pathlib import Path
from time import sleep
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import Mlp
from torch import Tensor, nn
from ways import CLASSES, NormalisedCnn, VisionTransformer, assert_exact, assert_read, of_cross_entropy

from imbdyn import Monitor, Trace, open_trace

STILL = 0.0
"""Learning rate at which every step reads the same."""


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Mlp(features=72)


def written(run: Path, field: str) -> Any:
    """Return a field of run.json once it is there: it is written in the background."""
    for _ in range(200):
        value = open_trace(run).run[field]
        if value is not None:
            return value
        sleep(0.05)
    raise AssertionError(f"{field} was not written within ten seconds")


def step(monitor: Monitor, model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    with monitor.batch(y):
        F.cross_entropy(model(x), y).backward()
    optimizer.step()
    optimizer.zero_grad()


def read_in(trace: Trace, number: int) -> set[str]:
    rows = trace.parameters[trace.parameters.step == number]
    return set(rows[rows.residual.notna()].parameter)


def test_layers_frozen_and_unfrozen_during_a_run(
    model: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=STILL)
    expected = of_cross_entropy(model, images, labels)
    every = set(expected)
    head = {"head.weight", "head.bias"}
    model.first.requires_grad_(False)
    model.second.requires_grad_(False)
    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        for number in range(1, 9):
            if number in (3, 7):
                model.first.requires_grad_(True)
                model.second.requires_grad_(True)
            if number == 5:
                model.first.requires_grad_(False)
            step(monitor, model, optimizer, images, labels)
    trace = open_trace(tmp_path / "run")
    assert_exact(trace)
    second = {"second.weight", "second.bias"}
    assert [read_in(trace, n) for n in range(1, 9)] == [head] * 2 + [every] * 2 + [head | second] * 2 + [every] * 2
    for number in (3, 4, 7, 8):
        assert_read(trace, expected, step=number)


def test_a_layer_that_is_used_in_some_steps_only(images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.extra, self.head = nn.Linear(72, 8), nn.Linear(8, 8), nn.Linear(8, CLASSES)
            self.use = False

        def forward(self, x: Tensor) -> Tensor:
            h = torch.tanh(self.body(x.flatten(1)))
            return self.head(h + torch.tanh(self.extra(h)) if self.use else h)

    torch.manual_seed(0)
    model = Sometimes()
    optimizer = torch.optim.SGD(model.parameters(), lr=STILL)
    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        step(monitor, model, optimizer, images, labels)  # no warning: what is not used is not to be covered
        entry = written(tmp_path / "run", "coverage")
        assert entry["share"] == 1.0
        assert entry["parameters"]["extra.weight"] == {
            "covered": False,
            "rule": None,
            "reason": "no gradient comes to it",
        }
        for use in (True, True, False, True):
            model.use = use
            step(monitor, model, optimizer, images, labels)
    trace = open_trace(tmp_path / "run")
    extra = {"extra.weight", "extra.bias"}
    # the second step meets the layer, the third learns it
    assert [extra <= read_in(trace, n) for n in range(1, 6)] == [False, False, True, False, True]
    assert trace.parameters.residual.max() <= 1e-5
    assert trace.run["coverage"]["share"] == 1.0
    model.use = True
    assert_read(trace, of_cross_entropy(model, images, labels), step=5)


def test_batch_normalisation_in_eval_mode_in_between(images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = NormalisedCnn()
    optimizer = torch.optim.SGD(model.parameters(), lr=STILL)
    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        for training in (True, True, False, False, True):
            model.train(training)
            if not training:  # the running statistics as they are: nothing mixes
                expected = of_cross_entropy(model, images, labels)
            step(monitor, model, optimizer, images, labels)
    trace = open_trace(tmp_path / "run")
    assert_exact(trace)
    for number in (3, 4):
        assert_read(trace, expected, step=number)


@pytest.mark.parametrize("make", [lambda: Mlp(features=72), VisionTransformer], ids=["mlp", "transformer"])
def test_an_evaluation_between_two_steps_changes_nothing(
    images: Tensor, labels: Tensor, tmp_path: Path, make: type[nn.Module]
) -> None:
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=STILL)
    expected = of_cross_entropy(model, images, labels)
    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        for _ in range(3):
            step(monitor, model, optimizer, images, labels)
            model.eval()  # the encoder's fast path, a function of its own
            with torch.no_grad(), monitor.evaluate("test"), monitor.batch(labels):
                model(images)
            model.train()
    trace = open_trace(tmp_path / "run")
    assert_exact(trace)
    for number in (1, 2, 3):
        assert_read(trace, expected, step=number)
    assert trace.steps[trace.steps.split == "test"].step.tolist() == [1, 2, 3]
    assert trace.features.nc1.notna().sum() == 3


def test_an_evaluation_between_the_micro_batches_of_a_step(
    model: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=STILL)
    expected = of_cross_entropy(model, images, labels)
    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        for number in range(3):
            for part in (slice(0, 10), slice(10, 24)):
                with monitor.batch(labels[part]):
                    (F.cross_entropy(model(images[part]), labels[part], reduction="sum") / 24).backward()
                if part.start == 0:
                    with torch.no_grad(), monitor.evaluate(f"test {number}"), monitor.batch(labels):
                        model(images)
            optimizer.step()
            optimizer.zero_grad()
    trace = open_trace(tmp_path / "run")
    assert_exact(trace)
    assert_read(trace, expected, step=3)


HEADS = {
    "without a bias": lambda: nn.Linear(8, CLASSES, bias=False),
    "of two layers": lambda: nn.Sequential(nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, CLASSES)),
    "another layer by its name": lambda: nn.Linear(8, 7),
}


@pytest.mark.parametrize("head", HEADS)
def test_a_head_that_is_changed_during_a_run(images: Tensor, labels: Tensor, tmp_path: Path, head: str) -> None:
    torch.manual_seed(0)
    model = NormalisedCnn()
    model.last = nn.Identity()
    forward = model.forward
    model.forward = lambda x: model.last(forward(x))
    optimizer = torch.optim.SGD(model.parameters(), lr=STILL)
    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        for number in range(1, 5):
            if number == 3:
                model.head = HEADS[head]()
                if head.startswith("another"):
                    model.last = nn.Linear(7, CLASSES)
                optimizer.add_param_group({"params": [*model.head.parameters(), *model.last.parameters()]})
            step(monitor, model, optimizer, images, labels)
            with monitor.evaluate("test"), torch.no_grad(), monitor.batch(labels):
                model(images)
    trace = open_trace(tmp_path / "run")
    assert_exact(trace)
    names = {name for name, _ in model.named_parameters()}
    assert read_in(trace, 3) == read_in(trace, 4) == names
    classifier = {"without a bias": "head", "of two layers": "head.2", "another layer by its name": "last"}[head]
    assert trace.run["classifier"] == classifier
    assert trace.features[trace.features.split == "test"].layer.tolist() == ["head", "head", classifier, classifier]
    rows = trace.classifier[(trace.classifier.split == "train") & (trace.classifier.step >= 3)]
    assert rows.groupby("step").class_id.apply(list).tolist() == [list(range(CLASSES))] * 2
    weight = model.get_parameter(f"{classifier}.weight").detach()
    for number in (3, 4):
        read = rows[rows.step == number].row_norm.to_numpy()
        assert read == pytest.approx(weight.norm(dim=1).numpy(), rel=1e-5)
    assert rows.bias.isna().all() == (head == "without a bias")
