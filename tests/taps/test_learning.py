"""What is learned of a model, when it is learned again, and what is said of the rest."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from reading import CLASSES, Reader, assert_gram, assert_read, by_definition, grams
from torch import Tensor, nn

from imbdyn.monitor.gradients import StepGradients


class Network(nn.Module):
    """A body, a head, and a second head that starts late."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.late = nn.Linear(72, 8), nn.Linear(8, CLASSES), nn.Linear(8, CLASSES)
        self.with_late = False

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.body(x.flatten(1)))
        return self.head(h) + self.late(h) if self.with_late else self.head(h)


def assert_step(step: StepGradients, model: nn.Module, x: Tensor, labels: Tensor) -> None:
    expected = {name: g for name, g in by_definition(model, x, labels).items() if g.any()}
    for name, gram in grams(step, list(expected)).items():
        assert_gram(gram, expected[name], what=name)


def test_a_layer_that_is_unfrozen_is_learned(images: Tensor, labels: Tensor) -> None:
    model = Network()
    model.body.requires_grad_(False)
    reader = Reader(model)
    reader.read(lambda: model(images), labels)
    assert reader.plan.covered() == ["head.weight", "head.bias"]
    model.body.requires_grad_(True)
    step = reader.read(lambda: model(images), labels)
    assert not step.has("body.weight")
    assert step.has("head.weight")
    assert_step(reader.read(lambda: model(images), labels), model, images, labels)
    assert reader.lessons == 2


def test_a_frozen_weight_beside_a_bias_that_learns(images: Tensor, labels: Tensor) -> None:
    model = Network()
    model.body.weight.requires_grad_(False)
    model.head.bias.requires_grad_(False)
    del model.late
    assert_read(model, images, labels)


def test_a_head_that_starts_late_is_learned(images: Tensor, labels: Tensor) -> None:
    model = Network()
    reader = Reader(model)
    reader.read(lambda: model(images), labels)
    model.with_late = True
    step = reader.read(lambda: model(images), labels)
    assert not step.has("late.weight")
    assert_step(reader.read(lambda: model(images), labels), model, images, labels)
    model.with_late = False
    assert_step(reader.read(lambda: model(images), labels), model, images, labels)
    assert reader.lessons == 2


def test_a_weight_with_a_new_use_counts_both(images: Tensor, labels: Tensor) -> None:
    model = Network()
    model.late = model.head
    reader = Reader(model)
    reader.read(lambda: model(images), labels)
    model.with_late = True
    assert not reader.read(lambda: model(images), labels).has("head.weight"), "one use of two is not read"
    for _ in range(2):
        assert_step(reader.read(lambda: model(images), labels), model, images, labels)
    assert reader.lessons == 2


@pytest.mark.parametrize("size", [0, 1])
def test_batches_that_show_nothing_may_come_first(size: int, images: Tensor, labels: Tensor) -> None:
    model = Network()
    del model.late
    reader = Reader(model)
    for _ in range(2):
        step = reader.step()
        output = reader.forward(step, labels[:size], lambda: model(images[:size]))
        F.cross_entropy(output, labels[:size], reduction="sum").backward()
        if size:
            assert_step(step, model, images[:1], labels[:1])
    assert not reader.plan.complete
    assert_step(reader.read(lambda: model(images), labels), model, images, labels)
    assert reader.plan.complete


def test_a_scale_of_zero_hides_a_layer_for_a_while_only(images: Tensor, labels: Tensor) -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.branch, self.head = nn.Linear(72, 8), nn.Linear(8, 8), nn.Linear(8, CLASSES)
            self.gate = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            h = self.body(x.flatten(1))
            return self.head(h + self.gate * torch.tanh(self.branch(h)))

    model = Gated()
    reader = Reader(model)
    reader.read(lambda: model(images), labels)
    assert reader.plan.refused == {}
    with torch.no_grad():
        model.gate += 0.5
    assert_step(reader.read(lambda: model(images), labels), model, images, labels)
    assert reader.lessons == 2
    assert reader.plan.complete


def test_a_dead_layer_is_given_up(images: Tensor, labels: Tensor) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    nn.init.constant_(model[1].bias, -1e6)
    reader = Reader(model)
    for _ in range(6):
        reader.read(lambda: model(images), labels)
    assert reader.lessons == 4
    assert reader.plan.refused["1.weight"] == (
        "torch.nn.functional.linear: no gradient reaches its result, so that its rows are nobody's"
    )


def test_a_parameter_that_nothing_depends_on_is_learned_once(images: Tensor, labels: Tensor) -> None:
    class Idle(Network):
        def forward(self, x: Tensor) -> Tensor:
            self.late(x.flatten(1)[:, :8])
            return super().forward(x)

    model = Idle()
    reader = Reader(model)
    for _ in range(3):
        assert_step(reader.read(lambda: model(images), labels), model, images, labels)
    assert reader.lessons == 1
    assert sorted(reader.plan.covered()) == ["body.bias", "body.weight", "head.bias", "head.weight"]


def test_what_only_the_loss_depends_on_is_named(images: Tensor, labels: Tensor) -> None:
    model = Network()
    reader = Reader(model)
    step = reader.step()
    lesson = reader.begin(step, labels)
    with reader.watch:
        output = model(images)
        reader.resolve(lesson, output)
        (F.cross_entropy(output, labels) + F.cross_entropy(model.late(images.flatten(1)[:, :8]), labels)).backward()
    reader.end(lesson)
    assert "the model's output does not depend on its result" in reader.plan.refused["late.weight"]
    assert sorted(reader.plan.covered()) == ["body.bias", "body.weight", "head.bias", "head.weight"]


def test_dropout_is_no_obstacle(images: Tensor, labels: Tensor) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, CLASSES))
    reader = Reader(model)
    for _ in range(3):
        numbers = torch.get_rng_state()
        step = reader.read(lambda: model(images), labels)
        torch.set_rng_state(numbers)
        assert_step(step, model, images, labels)
    assert reader.lessons == 1


def test_two_forward_passes_in_a_batch(images: Tensor, labels: Tensor) -> None:
    """Both are uses of the same parameters: their rows join."""
    model = Network()
    del model.late
    reader = Reader(model)

    def both(x: Tensor) -> Tensor:
        return model(x) + model(x.flip(-1))

    for _ in range(3):
        step = reader.step(at_once=True)
        lesson = reader.begin(step, labels)
        with reader.watch:
            first = model(images)
            reader.resolve(lesson, first)
            second = model(images.flip(-1))
            reader.resolve(lesson, second)
            F.cross_entropy(first + second, labels).backward()
        reader.end(lesson)

        class Both(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, x: Tensor) -> Tensor:
                return both(x)

        expected = by_definition(Both(), images, labels)
        for name, gram in grams(step, [n.removeprefix("model.") for n in expected]).items():
            assert_gram(gram, expected[f"model.{name}"], what=name)
    assert reader.lessons == 1


def test_data_that_is_made_in_the_batch_is_no_constant(images: Tensor, labels: Tensor) -> None:
    model = Network()
    del model.late
    reader = Reader(model)
    for _ in range(2):  # the head's rows are seen once those of the body are known
        reader.read(lambda: model(torch.tensor(images.tolist())), labels)
    assert_step(reader.read(lambda: model(torch.tensor(images.tolist())), labels), model, images, labels)
    assert reader.lessons == 2


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CLASSES, 8)
        self.body = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.body(self.embedding(x).mean(1)))
        return F.linear(h, self.embedding.weight)


class Again(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(8, 8), nn.Linear(8, CLASSES)
        self.same = self.inner

    def forward(self, x: Tensor) -> Tensor:
        h = F.one_hot(x, 8).float()
        return self.head(torch.tanh(self.same(torch.tanh(self.inner(h)))).mean(1))


class Mixed(nn.Module):
    """A convolution and a linear layer of the same weight."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Conv1d(8, 8, 1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = F.one_hot(x, 8).float()
        h = torch.tanh(self.kernel(h.mT)).mT
        return self.head(F.linear(h, self.kernel.weight[..., 0], self.kernel.bias).mean(1))


@pytest.mark.parametrize("network", [Tied, Again, Mixed])
def test_uses_of_a_shared_weight_join(network: Callable[[], nn.Module], labels: Tensor) -> None:
    torch.manual_seed(0)
    assert_read(network(), torch.randint(0, CLASSES, (24, 3)), labels)


def test_micro_batches_join(images: Tensor, labels: Tensor) -> None:
    model = Network()
    del model.late
    reader = Reader(model)
    for _ in range(2):
        step = reader.step()
        for part in (slice(0, 8), slice(8, 24)):
            output = reader.forward(step, labels[part], lambda part=part: model(images[part]))
            (F.cross_entropy(output, labels[part], reduction="sum") / 24).backward()
        assert_step(step, model, images, labels)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision(dtype: torch.dtype, images: Tensor, labels: Tensor) -> None:
    """Two roundings of the terms, and sums in float32: against the definition in float64."""
    torch.manual_seed(0)
    model = Network().to(dtype)
    del model.late
    reader = Reader(model)
    steps = [reader.read(lambda: model(images.to(dtype)).float(), labels) for _ in range(2)]
    exact = Network().double()
    del exact.late
    exact.load_state_dict(model.state_dict())
    expected = by_definition(exact, images.to(dtype).double(), labels)
    for step in steps:
        assert step.reduced_precision()
        for name, gram in grams(step, list(expected)).items():
            assert_gram(gram, expected[name], 4 * torch.finfo(dtype).eps, name)
