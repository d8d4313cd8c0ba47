"""What a watch must not do, and what it must not count."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reading import CLASSES, Reader, assert_gram, assert_read, by_definition, grams
from torch import Tensor, nn

from imbdyn.taps import Broadcast, NotCovered, rule
from imbdyn.taps.registry import RULES


def linear(width: int = 8) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(72, width), nn.Tanh(), nn.Linear(width, CLASSES))


def test_gram_matrices_are_those_of_one_backward_a_class(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    assert_read(network, images, labels)


class Tokens(nn.Module):
    """A linear layer over tokens [N, T, 4], whose result is a view; in place, the view gets another history."""

    def __init__(self, then: Callable[[Tensor, nn.Parameter], Tensor]) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(4, 9), nn.Linear(9, CLASSES)
        self.position = nn.Parameter(torch.randn(7, 9))
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.then(self.embed(x), self.position)).mean(1))


def add_to_a_view(x: Tensor, p: Tensor) -> Tensor:
    x.flatten(0, 1).view(-1, 63)[:, :9].add_(p[0])
    return x + p


def add_to_a_part(x: Tensor, p: Tensor) -> Tensor:
    x[:, 2:5] += p[2:5]
    return x + p


def write_a_part(x: Tensor, p: Tensor) -> Tensor:
    x = x + p
    x[:, 1] = p[1]
    return x


def part_alone(x: Tensor, p: Tensor) -> Tensor:
    part = x[:, 0]
    part.mul_(p[0])
    return x + part[:, None] + p


IN_PLACE = {
    "relu": lambda x, p: torch.relu_(x) + p,
    "+= then relu": lambda x, p: torch.relu_(x.add_(p)),
    "a view of it": add_to_a_view,
    "a part": add_to_a_part,
    "a part is replaced": write_a_part,
    "a part is used beside": part_alone,
    "a copy": lambda x, p: torch.zeros_like(x).copy_(p) + x,
    "addcmul_": lambda x, p: x.addcmul_(p, p, value=0.5),
    "a whole view that is expanded no further": lambda x, p: x + (2 * p).expand(7, 9) + (2 * p).sum(),
}


@pytest.mark.parametrize("then", IN_PLACE.values(), ids=IN_PLACE)
def test_functions_in_place(then: Callable[[Tensor, nn.Parameter], Tensor], labels: Tensor) -> None:
    torch.manual_seed(0)
    assert_read(Tokens(then), torch.randn(24, 7, 4), labels)


def test_gradients_that_do_not_go_into_the_parameters_are_not_counted(images: Tensor, labels: Tensor) -> None:
    """Adversarial training asks for the gradient of the input first."""
    model = linear()
    reader = Reader(model)
    reader.read(lambda: model(images), labels)
    x = images.clone().requires_grad_()
    step = reader.step()
    reader.begin(step, labels)
    with reader.watch:
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), labels), x)
        F.cross_entropy(model(x), labels).backward(inputs=[x])
        torch.autograd.backward(F.cross_entropy(model(x), labels), inputs=[x])
    reader.end(None)
    reader.plan.complete = False  # three forward passes are not what was learned
    y = images + gradient.sign()
    step = reader.step()
    lesson = reader.begin(step, labels)
    with reader.watch:
        first = model(x)
        reader.resolve(lesson, first)
        torch.autograd.grad(F.cross_entropy(first, labels), x)
        second = model(y)
        reader.resolve(lesson, second)
        F.cross_entropy(second, labels).backward()
    reader.end(lesson)
    expected = by_definition(model, y, labels)
    for name, gram in grams(step, list(expected)).items():
        assert_gram(gram, expected[name], what=name)


def test_freezing_and_unfreezing_inside_a_batch_is_no_use_of_a_parameter(images: Tensor, labels: Tensor) -> None:
    model = linear()
    reader = Reader(model)

    def run() -> Tensor:
        model.requires_grad_(True)
        assert all(p.shape and p.device.type == "cpu" and p.grad_fn is None for p in model.parameters())
        return model(images)

    step = reader.read(run, labels)
    assert reader.plan.covered() == ["1.weight", "1.bias", "3.weight", "3.bias"]
    expected = by_definition(model, images, labels)
    for name, gram in grams(step, list(expected)).items():
        assert_gram(gram, expected[name], what=name)


def test_labels_are_those_of_the_forward_pass(images: Tensor, labels: Tensor) -> None:
    model, buffer = linear(), labels.clone()
    step = Reader(model).read(lambda: model(images), buffer, at_once=False)
    buffer.zero_()  # a loader fills its buffer again
    assert_gram(grams(step, ["1.weight"])["1.weight"], by_definition(model, images, labels)["1.weight"])


def test_tokens_and_statistics_may_be_overwritten_before_the_step(labels: Tensor) -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(9, 6), nn.Linear(6, CLASSES)
            self.norm = nn.BatchNorm1d(6).eval()

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.embedding(x).mean(1)))

    torch.manual_seed(0)
    model, x = Bag(), torch.randint(0, 9, (24, 3))
    expected = by_definition(model, x, labels)
    step = Reader(model).read(lambda: model(x), labels, at_once=False)
    x.zero_()
    assert model.norm.running_mean is not None
    model.norm.running_mean += 100
    for name, gram in grams(step, list(expected)).items():
        assert_gram(gram, expected[name], what=name)


@pytest.mark.parametrize("learning", [True, False])
def test_released_taps_hold_nothing(learning: bool, images: Tensor, labels: Tensor) -> None:
    model = linear()
    reader = Reader(model)
    if not learning:
        reader.read(lambda: model(images), labels)
    step = reader.step(at_once=True)
    seen: list[weakref.ref[Tensor]] = []

    def run() -> Tensor:
        x = images.clone()
        seen.append(weakref.ref(x))
        output: Tensor = model(x)
        return output

    loss = F.cross_entropy(reader.forward(step, labels, run), labels)
    loss.backward()
    batch = weakref.ref(reader.batch)
    step.release()
    reader.batch = reader.watch.batch = None
    del step
    gc.collect()
    assert batch() is None, "somebody keeps the loss, which must not keep the batch"
    assert seen[0]() is None
    assert loss.grad_fn is not None
    assert not reader.watch.made_by
    assert not reader.watch.counts


def test_activations_are_let_go_of_as_the_backward_pass_goes_on(images: Tensor, labels: Tensor) -> None:
    model = linear()
    reader = Reader(model)
    reader.read(lambda: model(images), labels)
    alive: list[bool] = []
    held: list[weakref.ref[Tensor]] = []
    model[2].register_forward_hook(lambda _module, _args, output: held.append(weakref.ref(output.untyped_storage())))
    x = images.clone().requires_grad_()
    x.register_hook(lambda _gradient: alive.append(held[-1]() is not None))
    reader.read(lambda: model(x), labels)
    assert alive == [False]


@pytest.fixture
def own_rule() -> Iterator[Callable[..., Any]]:
    before = dict(RULES)
    yield rule
    RULES.clear()
    RULES.update(before)


class Scaled(nn.Module):
    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], width: int = 6) -> None:
        super().__init__()
        self.gain, self.head = nn.Parameter(torch.randn(width)), nn.Linear(width, CLASSES)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.function(x, self.gain)))


def test_users_add_a_rule(own_rule: Callable[..., Any], labels: Tensor) -> None:
    called = []

    @own_rule(torch.atan2)
    def atan2(dy: Tensor, input: Tensor, other: Tensor) -> Any:
        called.append(True)
        yield other, lambda: Broadcast(-dy * input / (input.square() + other.square()), other.shape)

    torch.manual_seed(0)
    assert_read(Scaled(torch.atan2), torch.randn(24, 6), labels)
    assert called


@pytest.mark.usefixtures("own_rule")
def test_the_rule_in_the_guide_runs_as_it_stands(labels: Tensor) -> None:
    guide = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    (snippet,) = re.findall(r"^\*\*A watched function\.\*\*.*?^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    exec(snippet, {})
    assert torch.atan2 in RULES
    torch.manual_seed(0)
    for function in (torch.atan2, lambda x, gain: gain.atan2(x)):
        assert_read(Scaled(function), torch.randn(24, 6), labels)


def test_functions_without_a_rule_are_read_all_the_same(labels: Tensor) -> None:
    torch.manual_seed(0)
    assert torch.atan2 not in RULES
    assert_read(Scaled(torch.atan2), torch.randn(24, 6), labels)


def test_a_rule_says_what_it_cannot_read(own_rule: Callable[..., Any], labels: Tensor) -> None:
    @own_rule(torch.atan2)
    def atan2(*_: Tensor) -> Any:
        raise NotCovered("an angle")

    model = Scaled(torch.atan2)
    reader = Reader(model)
    step = reader.read(lambda: model(torch.randn(24, 6)), labels)
    assert reader.plan.refused == {"gain": "torch.atan2 with an angle"}
    assert not step.has("gain")


@pytest.mark.parametrize("where", ["rule", "part"])
def test_a_rule_that_fails_breaks_nothing(where: str, own_rule: Callable[..., Any], labels: Tensor) -> None:
    def broken() -> Any:
        raise RuntimeError("boom")

    @own_rule(torch.atan2)
    def atan2(_dy: Tensor, _input: Tensor, other: Tensor) -> Any:
        yield other, broken if where == "part" else broken()

    torch.manual_seed(0)
    model, x = Scaled(torch.atan2), torch.randn(24, 6)
    reader = Reader(model)
    step = reader.read(lambda: model(x), labels)
    assert reader.plan.refused == {"gain": "the rule of torch.atan2 failed: RuntimeError: boom"}
    assert reader.plan.covered() == ["head.weight", "head.bias"]
    expected = by_definition(model, x, labels)
    assert_gram(grams(step, ["head.weight"])["head.weight"], expected["head.weight"])
    assert model.gain.grad is not None
    torch.testing.assert_close(model.gain.grad, expected["gain"].sum(0))


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor) -> Tensor:
        ctx.save_for_backward(x, gain)
        return 2 * x * gain

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, gain = ctx.saved_tensors
        return 2 * grads[0] * gain, (2 * grads[0] * x).sum(0)


def test_a_users_own_function_is_not_covered(labels: Tensor) -> None:
    """A mode does not see it."""
    model = Scaled(Double.apply)
    reader = Reader(model)
    step = reader.read(lambda: model(torch.randn(24, 6)), labels)
    assert reader.plan.covered() == ["head.weight", "head.bias"]
    assert not step.has("gain")


@pytest.mark.parametrize("options", [{"max_norm": 1.0}, {"max_norm": 1.0, "mode": "sum"}])
def test_embeddings_that_change_their_weight_are_named(options: dict[str, Any], labels: Tensor) -> None:
    kind = nn.EmbeddingBag if "mode" in options else nn.Embedding
    model = nn.Sequential(kind(9, 5, **options), nn.Flatten(), nn.LazyLinear(CLASSES))
    tokens = torch.randint(0, 9, (24, 3))
    model(tokens)
    reader = Reader(model)
    reader.read(lambda: model(tokens), labels)
    assert reader.plan.covered() == ["2.weight", "2.bias"]
    assert "max_norm, which changes the weight itself" in reader.plan.refused["0.weight"]


def test_a_penalty_on_a_weight_is_a_use_that_is_not_read(images: Tensor, labels: Tensor) -> None:
    """It has no rows; the residual of the step says how much of the gradient came from it."""
    model = linear()
    reader = Reader(model)
    reader.read(lambda: model(images), labels)
    step = reader.step()
    lesson = reader.begin(step, labels)
    with reader.watch:
        output = model(images)
        reader.resolve(lesson, output)
        (F.cross_entropy(output, labels) + model[1].weight.square().sum()).backward()
    reader.end(lesson)
    assert step.has("3.weight")


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_padding_modes(mode: str, labels: Tensor) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(2, 3, 3, padding=(2, 1), padding_mode=mode)
    model = nn.Sequential(convolution, nn.Tanh(), nn.Flatten(), nn.LazyLinear(CLASSES))
    x = torch.randn(24, 2, 6, 5)
    model(x)
    assert_read(model, x, labels)
