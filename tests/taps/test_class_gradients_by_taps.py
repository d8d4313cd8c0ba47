"""What the taps read, against the definition: one backward pass a class on the same network."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imbdyn.monitor.gradients import StepGradients
from imbdyn.reference import class_gradients
from imbdyn.taps import Coverage, NotCovered, Rows, Watch, rule
from imbdyn.taps.registry import RULES

CLASSES = 5


def watched(model: nn.Module, x: Tensor, labels: Tensor) -> tuple[Watch, Coverage]:
    """Run forward and backward under a Watch; the loss is the mean cross-entropy."""
    coverage = Coverage()
    watch = Watch({id(p): name for name, p in model.named_parameters()}, labels, coverage)
    with watch:
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
    return watch, coverage


def grams(watch: Watch, names: list[str]) -> dict[str, Tensor]:
    gradients = StepGradients(CLASSES, -100)
    gradients.add(watch)
    read = gradients.grams(names)
    full = torch.zeros(len(names), CLASSES, CLASSES, dtype=torch.float64)
    ids = torch.as_tensor(read.class_ids)
    full[:, ids[:, None], ids] = torch.as_tensor(read.gram)
    return dict(zip(names, full, strict=True))


def by_definition(model: nn.Module, x: Tensor, labels: Tensor, ignore_index: int = -100) -> dict[str, Tensor]:
    losses = F.cross_entropy(model(x), labels, reduction="none", ignore_index=ignore_index)
    losses = losses / (labels != ignore_index).sum()
    return class_gradients(losses, labels, CLASSES, model.named_parameters(), ignore_index=ignore_index)


def assert_gram(read: Tensor, gradients: Tensor) -> None:
    """Both Gram matrices agree to 1e-5 of the largest squared norm."""
    flat = gradients.flatten(1).double()
    expected = flat @ flat.T
    torch.testing.assert_close(read, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_gram_matrices_are_those_of_one_backward_a_class(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    watch, coverage = watched(network, images, labels)
    names = [name for name, _ in network.named_parameters()]
    assert sorted(coverage.covered()) == sorted(names)
    expected = by_definition(network, images, labels)
    for name, gram in grams(watch, names).items():
        assert_gram(gram, expected[name])
        assert gram[3].abs().sum() == 0, "class 3 is absent"


def test_a_shared_weight_joins_its_uses(images: Tensor, labels: Tensor) -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(72, 72)
            self.head = nn.Linear(72, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(self.inner(torch.tanh(self.inner(x.flatten(1))))))

    model = Shared()
    watch, _ = watched(model, images, labels)
    expected = by_definition(model, images, labels)
    for name, gram in grams(watch, ["inner.weight", "inner.bias"]).items():
        assert_gram(gram, expected[name])


class Tokens(nn.Module):
    """A linear layer over tokens [N, T, 4], whose result is a view; in place, the view gets another history."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 9)
        self.head = nn.Linear(9, CLASSES)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.activation(self.embed(x)).mean(1))


@pytest.mark.parametrize("activation", [torch.tanh, torch.relu_], ids=["tanh", "relu in place"])
def test_tokens_are_rows_of_their_sample(activation: Callable[[Tensor], Tensor], labels: Tensor) -> None:
    model, x = Tokens(activation), torch.randn(24, 7, 4)
    watch, _ = watched(model, x, labels)
    expected = by_definition(model, x, labels)
    for name, gram in grams(watch, [name for name, _ in model.named_parameters()]).items():
        assert_gram(gram, expected[name])


def test_sample_norms_are_those_of_one_backward_a_sample(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    watch, _ = watched(network, images, labels)
    gradients = StepGradients(CLASSES, -100)
    gradients.add(watch)
    names = [name for name, _ in network.named_parameters()]
    read = gradients.grams(names)
    expected = torch.zeros(len(names), CLASSES, dtype=torch.float64)
    for x, y in zip(images, labels, strict=True):
        network.zero_grad()
        (F.cross_entropy(network(x[None]), y[None]) / len(labels)).backward()
        for i, p in enumerate(network.parameters()):
            assert p.grad is not None
            expected[i, y] += p.grad.double().square().sum()
    torch.testing.assert_close(
        torch.as_tensor(read.sample_norm_sq), expected[:, torch.as_tensor(read.class_ids)], rtol=1e-5, atol=1e-12
    )


def test_frozen_parameters_are_left_alone(images: Tensor, labels: Tensor) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    for p in model[1].parameters():
        p.requires_grad_(False)
    coverage = Coverage()
    watch = Watch({id(p): n for n, p in model.named_parameters() if p.requires_grad}, labels, coverage)
    with watch:
        F.cross_entropy(model(images), labels).backward()
    assert coverage.covered() == ["3.weight", "3.bias"]
    assert set(watch.rows) == {"3.weight", "3.bias"}


@pytest.mark.parametrize(
    ("model", "parameter", "reason"),
    [
        (nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.Flatten(), nn.Linear(64, CLASSES)), "0.weight", "groups=2"),
        (
            nn.Sequential(nn.Flatten(), nn.PReLU(72), nn.Linear(72, CLASSES)),
            "1.weight",
            "torch.nn.functional.prelu has no rule",
        ),
        (
            nn.Sequential(
                nn.Flatten(0, 1), nn.Linear(6, 6), nn.Unflatten(0, (24, 2)), nn.Flatten(), nn.Linear(72, CLASSES)
            ),
            "1.weight",
            "first dimension of (48, 6, 6) is not the batch of 24",
        ),
    ],
)
def test_what_cannot_be_read_is_named(
    model: nn.Module, parameter: str, reason: str, images: Tensor, labels: Tensor
) -> None:
    watch, coverage = watched(model, images, labels)
    assert parameter not in coverage.covered()
    assert reason in coverage.refused[parameter]
    assert parameter not in watch.rows


def test_a_parameter_that_also_enters_a_function_without_a_rule_is_not_covered(images: Tensor, labels: Tensor) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, CLASSES))
    coverage = Coverage()
    with Watch({id(p): n for n, p in model.named_parameters()}, labels, coverage):
        (F.cross_entropy(model(images), labels) + model[1].weight.square().sum()).backward()
    assert coverage.covered() == ["1.bias"]
    assert "square" in coverage.refused["1.weight"]


def test_users_add_a_rule(labels: Tensor) -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.randn(6))
            self.head = nn.Linear(6, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.special.expm1(torch.mul(x, self.gain)))

    @rule(torch.mul)
    def mul(input: Tensor, other: Tensor):  # type: ignore[no-untyped-def]
        if other.dim() != 1:
            raise NotCovered("a scale that is no vector")
        yield other, lambda dy: Rows(dy.new_ones(dy.shape[0], 1, 1), (dy * input.detach())[:, None])

    try:
        model, x = Scale(), torch.randn(24, 6)
        watch, coverage = watched(model, x, labels)
    finally:
        del RULES[torch.mul]
    assert "gain" in coverage.covered()
    assert_gram(grams(watch, ["gain"])["gain"], by_definition(model, x, labels)["gain"])


def test_gradients_that_do_not_go_into_the_parameters_are_not_counted(images: Tensor, labels: Tensor) -> None:
    """Adversarial training asks for the gradient of the input first."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.Tanh(), nn.Linear(8, CLASSES))
    x = images.clone().requires_grad_()
    watch = Watch({id(p): n for n, p in model.named_parameters()}, labels, Coverage())
    with watch:
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), labels), x)
        F.cross_entropy(model(x), labels).backward(inputs=[x])
        F.cross_entropy(model(images + gradient.sign()), labels).backward()
    expected = by_definition(model, images + gradient.sign(), labels)
    for name, gram in grams(watch, list(expected)).items():
        assert_gram(gram, expected[name])


def test_a_rule_that_fails_does_not_break_the_forward_pass(labels: Tensor) -> None:
    @rule(torch.mul)
    def broken(*_: Tensor):  # type: ignore[no-untyped-def]
        raise RuntimeError("boom")

    gain, coverage = nn.Parameter(torch.ones(6)), Coverage()
    try:
        with Watch({id(gain): "gain"}, labels, coverage):
            torch.mul(torch.ones(24, 6), gain)
    finally:
        del RULES[torch.mul]
    assert coverage.refused["gain"] == "the rule of torch.mul failed: RuntimeError: boom"


def test_freezing_and_unfreezing_inside_a_batch_is_no_use_of_a_parameter(images: Tensor, labels: Tensor) -> None:
    model, coverage = nn.Sequential(nn.Flatten(), nn.Linear(72, CLASSES)), Coverage()
    with Watch({id(p): n for n, p in model.named_parameters()}, labels, coverage):
        model.requires_grad_(True)
        F.cross_entropy(model(images), labels).backward()
    assert coverage.covered() == ["1.weight", "1.bias"]


def test_labels_are_those_of_the_forward_pass(images: Tensor, labels: Tensor) -> None:
    model, buffer = nn.Sequential(nn.Flatten(), nn.Linear(72, CLASSES)), labels.clone()
    watch, _ = watched(model, images, buffer)
    buffer.zero_()  # a loader fills its buffer again
    assert_gram(grams(watch, ["1.weight"])["1.weight"], by_definition(model, images, labels)["1.weight"])


def test_released_taps_hold_nothing(images: Tensor, labels: Tensor) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, CLASSES))
    watch = Watch({id(p): n for n, p in model.named_parameters()}, labels, Coverage())
    with watch:
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
    watch.release()
    alive = weakref.ref(watch)
    del watch
    assert alive() is None, "somebody keeps the loss, which must not keep the activations"
    assert loss.grad_fn is not None
