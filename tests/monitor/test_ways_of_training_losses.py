"""Several losses, several backward passes, several outputs: all that flows into p.grad is read, once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import Mlp
from torch import Tensor, nn
from ways import CLASSES, assert_exact, assert_read, by_loss, of_cross_entropy, one_step

from imbdyn import ImbdynWarning


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Mlp(features=72)


def test_two_backward_passes_through_one_forward_pass(
    model: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    def backward() -> None:
        z = model(images)
        F.cross_entropy(z, labels).backward(retain_graph=True)
        (0.1 * F.multi_margin_loss(z, labels)).backward()

    z = model(images)
    terms = F.cross_entropy(z, labels, reduction="none") + 0.1 * F.multi_margin_loss(z, labels, reduction="none")
    expected = by_loss(model, terms / len(labels), labels)
    trace = one_step(model, labels, backward, tmp_path / "run", steps=4)
    read = trace.parameters.groupby("step").residual
    assert read.count().tolist() == [6, 0, 6, 6], "the second step finds out that all must be held, the third holds it"
    assert trace.parameters.residual.max() <= 1e-5
    assert trace.run["coverage"]["share"] == 1.0
    for step in (1, 3, 4):
        assert_read(trace, expected, step=step)


def test_two_losses_on_one_forward_pass(model: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    def terms() -> Tensor:
        z = model(images)
        return (F.cross_entropy(z, labels, reduction="none") + 0.5 * z.square().mean(1)) / len(labels)

    expected = by_loss(model, terms(), labels)
    trace = one_step(model, labels, lambda: terms().sum().backward(), tmp_path / "run")
    assert_exact(trace)
    assert_read(trace, expected, step=3)


@pytest.mark.parametrize("together", [True, False], ids=["one backward", "two backwards"])
def test_two_forward_passes_in_a_batch(
    model: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path, together: bool
) -> None:
    """As in consistency training: cross terms between the two passes count."""
    noisy = images + 0.3 * torch.randn(images.shape, generator=torch.Generator().manual_seed(4))

    def backward() -> None:
        first = F.cross_entropy(model(images), labels)
        if together:
            (first + F.cross_entropy(model(noisy), labels)).backward()
        else:
            first.backward()
            F.cross_entropy(model(noisy), labels).backward()

    a, b = of_cross_entropy(model, images, labels), of_cross_entropy(model, noisy, labels)
    trace = one_step(model, labels, backward, tmp_path / "run")
    assert_exact(trace)
    for step in (1, 3):
        assert_read(trace, {name: a[name] + b[name] for name in a}, step=step)


def test_a_second_forward_pass_that_comes_later_is_learned_when_it_comes(
    model: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    calls = iter([1, 1, 2, 2, 2])

    def backward() -> None:
        sum(F.cross_entropy(model(images), labels) for _ in range(next(calls))).backward()

    expected = of_cross_entropy(model, images, labels)
    trace = one_step(model, labels, backward, tmp_path / "run", steps=5)
    assert trace.parameters.groupby("step").residual.count().tolist() == [6, 6, 0, 6, 6]
    assert trace.parameters.residual.max() <= 1e-5
    assert trace.run["problems"] == {}, "what is still to be learned is nothing to warn of"
    assert trace.run["coverage"]["share"] == 1.0
    for step, times in ((2, 1), (4, 2), (5, 2)):
        assert_read(trace, {name: times * g for name, g in expected.items()}, step=step)


@dataclass
class Output:
    logits: Tensor
    auxiliary: Tensor


class TwoHeads(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.body, self.auxiliary, self.head = nn.Linear(72, 9), nn.Linear(9, CLASSES), nn.Linear(9, CLASSES)
        self.form = form

    def forward(self, x: Tensor) -> Any:
        h = torch.tanh(self.body(x.flatten(1)))
        z, auxiliary = self.head(h), self.auxiliary(h)
        if self.form == "tuple":
            return z, auxiliary
        return Output(z, auxiliary) if self.form == "dataclass" else {"out": z, "aux": auxiliary}


@pytest.mark.parametrize("form", ["tuple", "dict", "dataclass"])
def test_auxiliary_heads(images: Tensor, labels: Tensor, tmp_path: Path, form: str) -> None:
    torch.manual_seed(0)
    model = TwoHeads(form)
    options = {
        "tuple": {"logits": lambda output: output[0]},
        "dict": {"logits": lambda output: output["out"]},
        "dataclass": {},
    }[form]

    def terms() -> Tensor:
        output = model(images)
        z, auxiliary = {
            "tuple": lambda: output,
            "dict": lambda: output.values(),
            "dataclass": lambda: (output.logits, output.auxiliary),
        }[form]()
        each = [F.cross_entropy(logits, labels, reduction="none") for logits in (z, auxiliary)]
        return (each[0] + 0.3 * each[1]) / len(labels)

    expected = by_loss(model, terms(), labels)
    trace = one_step(model, labels, lambda: terms().sum().backward(), tmp_path / "run", classifier="head", **options)
    assert_exact(trace)
    assert_read(trace, expected, step=2)
    assert trace.run["classifier"] == "head"


WEIGHT = torch.tensor([0.5, 1.0, 2.0, 3.0, 4.0])


def focal(z: Tensor, y: Tensor) -> Tensor:
    loss = F.cross_entropy(z, y, reduction="none")
    return ((1 - torch.exp(-loss)).square() * loss) / len(y)


@pytest.mark.parametrize(
    "terms",
    [
        lambda z, y: F.cross_entropy(z, y, reduction="none", label_smoothing=0.1) / len(y),
        lambda z, y: F.cross_entropy(z, y, WEIGHT, reduction="none") / WEIGHT[y].sum(),
        focal,
        lambda z, y: F.binary_cross_entropy_with_logits(z, F.one_hot(y, CLASSES).float(), reduction="none").sum(1),
    ],
    ids=["label smoothing", "class weights", "focal", "sigmoid"],
)
def test_losses_of_many_kinds(model: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path, terms: Any) -> None:
    expected = by_loss(model, terms(model(images), labels), labels)
    trace = one_step(model, labels, lambda: terms(model(images), labels).sum().backward(), tmp_path / "run")
    assert_exact(trace)
    assert_read(trace, expected, step=2)


def test_gradients_that_a_penalty_asks_for_are_not_counted(
    model: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    """A gradient norm that is looked at, by torch.autograd.grad, goes into no p.grad."""

    def backward() -> None:
        loss = F.cross_entropy(model(images), labels)
        torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
        loss.backward()

    expected = of_cross_entropy(model, images, labels)
    trace = one_step(model, labels, backward, tmp_path / "run")
    assert_exact(trace)
    assert_read(trace, expected, step=3)


def clipped_by_value(model: nn.Module, x: Tensor, y: Tensor) -> None:
    F.cross_entropy(model(x), y).backward()
    nn.utils.clip_grad_value_(model.parameters(), 0.01)


def adversarial(model: nn.Module, x: Tensor, y: Tensor) -> None:
    shift = torch.zeros_like(x, requires_grad=True)
    F.cross_entropy(model(x + shift), y).backward()
    model.zero_grad()
    assert shift.grad is not None
    F.cross_entropy(model(x + shift.grad.sign()), y).backward()


@pytest.mark.parametrize(
    ("backward", "cause"),
    [
        (clipped_by_value, r"more than one common factor \(clip_grad_value_"),
        (adversarial, r"thrown away in a monitor\.batch \(zero_grad between two backward passes\)"),
    ],
    ids=["clipping by value", "adversarial steps"],
)
def test_gradients_that_are_not_what_came_back_are_one_warning_that_names_the_cause(
    model: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path, backward: Any, cause: str
) -> None:
    with pytest.warns(ImbdynWarning, match=rf"do not sum to its gradient at step 1.*{cause}"):
        trace = one_step(model, labels, lambda: backward(model, images, labels), tmp_path / "run")
    assert trace.run["problems"]["residual"]["times"] == 3
    assert trace.parameters.groupby("step").residual.max().min() > 1e-4


def penalised(model: nn.Module, x: Tensor, y: Tensor) -> None:
    (F.cross_entropy(model(x), y) + 0.1 * sum(p.square().sum() for p in model.parameters())).backward()


def with_unlabelled(model: nn.Module, x: Tensor, y: Tensor) -> None:
    (F.cross_entropy(model(x), y) + model(x[:7].flip(3)).square().mean()).backward()


def by_grad(model: nn.Module, x: Tensor, y: Tensor) -> None:
    gradients = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
    for p, gradient in zip(model.parameters(), gradients, strict=True):
        p.grad = gradient


def functionally(model: nn.Module, x: Tensor, y: Tensor) -> None:
    def loss_of(parameters: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(model, parameters, (x,)), y)

    gradients = torch.func.grad(loss_of)({name: p.detach() for name, p in model.named_parameters()})
    for name, p in model.named_parameters():
        p.grad = gradients[name]


@pytest.mark.parametrize(
    ("backward", "reason"),
    [
        (penalised, "the model's output does not depend on its result (a penalty, or"),
        (with_unlabelled, "a forward pass of other samples than the labels'), so that its rows are nobody's"),
        (by_grad, "or torch.autograd.grad made its gradient"),
        (functionally, "a copy was used, as in torch.func"),
    ],
    ids=["penalty", "unlabelled samples", "torch.autograd.grad", "torch.func"],
)
def test_gradients_that_cannot_be_read_have_a_reason_that_names_the_cause(
    model: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path, backward: Any, reason: str
) -> None:
    with pytest.warns(ImbdynWarning, match=r"^class gradients cover 0\.0% .*" + re.escape(reason)):
        trace = one_step(model, labels, lambda: backward(model, images, labels), tmp_path / "run")
    assert trace.class_gradients.empty
    assert all(reason in about["reason"] for about in trace.run["coverage"]["parameters"].values())
    assert trace.steps["count"].sum() >= 3 * len(labels)
