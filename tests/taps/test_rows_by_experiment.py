"""Which sample each row belongs to is found by experiment: every layout against one backward pass a class."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from reading import CLASSES, Reader, assert_gram, assert_read, by_definition, grams
from torch import Tensor, nn

from imbdyn.taps import Layout

N = 6


class Arranged(nn.Module):
    """x [N, T, 4]: arranged in some way, through `body`, arranged back to [N, ...], and classified."""

    def __init__(
        self, before: Callable[[Tensor], Tensor], after: Callable[[Tensor, int], Tensor], body: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.before, self.after = before, after
        self.body = body or nn.Linear(4, 4)
        self.norm, self.scale = nn.LayerNorm(4), nn.Parameter(torch.randn(4))
        self.position = nn.Parameter(torch.randn(1, 4))
        self.head = nn.LazyLinear(CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.body(self.before(x)) + self.position) * self.scale
        return self.head(torch.tanh(self.after(y, len(x))).flatten(1))


def windows_of(x: Tensor, windows: int) -> Tensor:
    return x.reshape(len(x), windows, -1, 4).flatten(0, 1)


ARRANGED: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, int], Tensor], int, Layout]] = {
    # name: (before, after, T, where the rows of `body` are)
    "sequence first": (lambda x: x.transpose(0, 1), lambda y, _: y.transpose(0, 1), 5, Layout(1, 1, 1)),
    "sequence first, T == N": (lambda x: x.transpose(0, 1), lambda y, _: y.transpose(0, 1), N, Layout(1, 1, 1)),
    "sequence first, summed": (lambda x: x.transpose(0, 1), lambda y, _: y.sum(0), N, Layout(1, 1, 1)),
    "batch first, T == N": (lambda x: x, lambda y, _: y, N, Layout(0, 1, 1)),
    "rows of N x T": (lambda x: x.flatten(0, 1), lambda y, n: y.view(n, -1, 4), 5, Layout(0, 1, 5)),
    "rows of N x T, T == N": (lambda x: x.flatten(0, 1), lambda y, n: y.view(n, -1, 4), N, Layout(0, 1, N)),
    "rows of T x N": (
        lambda x: x.transpose(0, 1).flatten(0, 1),
        lambda y, n: y.view(-1, n, 4).transpose(0, 1),
        5,
        Layout(0, 5, 1),
    ),
    "rows of T x N, T == N": (
        lambda x: x.transpose(0, 1).flatten(0, 1),
        lambda y, n: y.view(-1, n, 4).transpose(0, 1),
        N,
        Layout(0, N, 1),
    ),
    "as many windows as samples, behind": (
        lambda x: windows_of(x, N),
        lambda y, n: y.view(n, -1, 4),
        2 * N,
        Layout(0, 1, N),
    ),
    "as many windows as samples, before": (
        lambda x: windows_of(x, N).view(len(x), N, 2, 4).transpose(0, 1).flatten(0, 1),
        lambda y, n: y.view(N, n, 2, 4).transpose(0, 1).flatten(1),
        2 * N,
        Layout(0, N, 1),
    ),
    "heads before and windows behind": (
        lambda x: x.view(len(x), 2, 3, 2, 4).transpose(0, 1).flatten(0, 2),
        lambda y, n: y.view(2, n, 3, 2, 4).transpose(0, 1).flatten(1),
        12,
        Layout(0, 2, 3),
    ),
    "heads before and windows in the second dimension": (
        lambda x: x.view(len(x), 2, 3, 4).permute(2, 1, 0, 3).flatten(1, 2),
        lambda y, n: y.view(3, 2, n, 4).permute(2, 1, 0, 3).flatten(1),
        6,
        Layout(1, 2, 1),
    ),
}


def made(name: str) -> tuple[Arranged, Tensor, Tensor]:
    torch.manual_seed(0)
    before, after, length, _ = ARRANGED[name]
    model, x = Arranged(before, after), torch.randn(N, length, 4)
    model(x)
    return model, x, torch.tensor([0, 1, 0, 4, 2, 0])


@pytest.mark.parametrize("name", ARRANGED)
def test_rows_are_those_of_their_sample(name: str) -> None:
    model, x, labels = made(name)
    reader = assert_read(model, x, labels)
    assert reader.plan.layouts["body.weight#0"] == ARRANGED[name][3]


@pytest.mark.parametrize("name", ARRANGED)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_other_batch_sizes_are_arranged_alike(name: str, size: int) -> None:
    model, x, labels = made(name)
    reader = Reader(model)
    reader.read(lambda: model(x), labels)
    x, labels = x[:size], labels[:size]
    step = reader.read(lambda: model(x), labels)
    assert reader.lessons == 1
    expected = by_definition(model, x, labels)
    for parameter, gram in grams(step, list(expected)).items():
        assert_gram(gram, expected[parameter], what=parameter)


@pytest.mark.parametrize("name", ARRANGED)
@pytest.mark.parametrize("size", [1, 2])
def test_the_first_batch_may_be_small(name: str, size: int) -> None:
    model, x, labels = made(name)
    reader = Reader(model)
    step = reader.read(lambda: model(x[:size]), labels[:size])
    expected = by_definition(model, x[:size], labels[:size])
    for parameter, gram in grams(step, list(expected)).items():
        assert_gram(gram, expected[parameter], what=parameter)
    assert reader.plan.complete == (size > 1), "one sample does not show how rows lie"
    step = reader.read(lambda: model(x), labels)
    expected = by_definition(model, x, labels)
    for parameter, gram in grams(step, list(expected)).items():
        assert_gram(gram, expected[parameter], what=parameter)


def test_windows_that_were_one_are_learned_again() -> None:
    """Nothing said on which side of the samples they would be folded."""
    model, x, labels = made("rows of T x N")
    reader = Reader(model)
    model.head = nn.Linear(4, CLASSES)
    reader.read(lambda: model(x[:, :1]), labels)
    model.after = lambda y, n: y.view(-1, n, 4).sum(0)
    step = reader.read(lambda: model(x), labels)
    assert not step.has("body.weight")
    step = reader.read(lambda: model(x), labels)
    assert reader.lessons == 2
    expected = by_definition(model, x, labels)
    for parameter, gram in grams(step, list(expected)).items():
        assert_gram(gram, expected[parameter], what=parameter)


def test_the_batch_in_the_last_dimension() -> None:
    class Columns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.b = nn.Parameter(torch.randn(8, 4)), nn.Parameter(torch.randn(8, 1))
            self.v = nn.Parameter(torch.randn(CLASSES, 8))

        def forward(self, x: Tensor) -> Tensor:
            return (self.v @ torch.tanh(self.w @ x.T + self.b)).T

    torch.manual_seed(0)
    reader = assert_read(Columns(), torch.randn(N, 4), torch.tensor([0, 1, 0, 4, 2, 0]))
    assert reader.plan.layouts["w#0"] == Layout(1, 1, 1)


def test_features_that_lie_with_the_samples_are_followed_until_they_are_apart() -> None:
    """A result [D * N] that is shuffled has rows of nobody; what it goes into has."""

    class Shuffled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), nn.Linear(12, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            order = torch.randperm(x.shape[0] * x.shape[1], generator=torch.Generator().manual_seed(0))
            y = self.body(x.flatten(0, 1)[order])
            return self.head(torch.tanh(y[order.argsort()]).view(len(x), -1))

    torch.manual_seed(0)
    assert_read(Shuffled(), torch.randn(N, 3, 4), torch.tensor([0, 1, 0, 4, 2, 0]), learn=3)


def test_samples_that_go_different_ways_are_read() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            y, goes_left = torch.zeros_like(x), x[:, 0] > 0
            y[goes_left] = self.left(x[goes_left])
            y[~goes_left] = self.right(x[~goes_left])
            return self.head(torch.tanh(y))

    torch.manual_seed(0)
    labels = torch.tensor([0, 1, 0, 4, 2, 0, 1, 1])
    model, x = Experts(), torch.randn(8, 4)
    reader = Reader(model)
    for _ in range(4):
        step = reader.read(lambda: model(x), labels)
    assert reader.plan.complete
    expected = by_definition(model, x, labels)
    for parameter, gram in grams(step, list(expected)).items():
        assert_gram(gram, expected[parameter], what=parameter)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.m, self.n = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.n(self.b(F.relu(self.m(self.a(x))))))


def residual_network(blocks: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), *(Block(8) for _ in range(blocks)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES),
    )  # fmt: skip


def plain_network(layers: int) -> nn.Module:
    body = [layer for _ in range(layers) for layer in (nn.LazyConv2d(8, 3, padding=1), nn.LazyBatchNorm2d(), nn.ReLU())]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES))


def vectors(layers: int) -> nn.Module:
    body = [layer for _ in range(layers) for layer in (nn.LazyLinear(16), nn.LazyBatchNorm1d(), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *body, nn.Linear(16, CLASSES))


@pytest.mark.parametrize("network", [lambda: residual_network(15), lambda: plain_network(30), lambda: vectors(10)])
@pytest.mark.parametrize("size", [2, 3, 8])
def test_batch_normalisation_hides_no_rows(network: Callable[[], nn.Module], size: int) -> None:
    torch.manual_seed(0)
    model = network()
    x, labels = torch.randn(size, 3, 8, 8), torch.arange(size) % CLASSES
    model(x)
    for p in model.parameters():
        nn.init.normal_(p, std=0.3) if p.dim() > 1 else nn.init.uniform_(p, 0.5, 1)
    reader = Reader(model)
    step = reader.read(lambda: model(x), labels)
    assert reader.plan.refused == {}
    assert set(reader.plan.layouts.values()) == {Layout(0, 1, 1)}
    names = [name for name, _ in model.named_parameters()]
    for (name, gram), p in zip(grams(step, names).items(), model.parameters(), strict=True):
        assert p.grad is not None
        parts = gram.diagonal().sqrt().sum() ** 2
        assert abs(float(gram.sum() - p.grad.double().square().sum())) <= 1e-5 * float(parts), name


def test_the_experiment_leaves_no_trace() -> None:
    """Gradients, running statistics and random numbers are those without it."""
    torch.manual_seed(0)
    model, x, labels = residual_network(2), torch.randn(8, 3, 8, 8), torch.arange(8) % CLASSES
    model.insert(2, nn.Dropout(0.2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(1)
    F.cross_entropy(model(x), labels).backward()
    gradients, statistics = [p.grad for p in model.parameters()], [b.clone() for b in model.buffers()]
    numbers = torch.get_rng_state()
    model.zero_grad(set_to_none=True)
    model.load_state_dict(before)
    torch.manual_seed(1)
    Reader(model).read(lambda: model(x), labels)
    for p, gradient in zip(model.parameters(), gradients, strict=True):
        assert p.grad is not None
        assert gradient is not None
        assert torch.equal(p.grad, gradient)
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), statistics, strict=True))
    assert torch.equal(torch.get_rng_state(), numbers)


def test_hand_written_normalisation_over_the_batch_is_told_apart() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1) for _ in range(4)])
            self.scale = nn.Parameter(torch.ones(4, 8, 1, 1))
            self.head = nn.Linear(8, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            for layer, scale in zip(self.layers, self.scale, strict=True):
                x = layer(x)
                mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True)
                x = F.relu((x - mean) / (variance + 1e-5).sqrt() * scale)
            return self.head(x.mean((2, 3)))

    torch.manual_seed(0)
    model, x, labels = Normed(), torch.randn(16, 8, 8, 8), torch.arange(16) % CLASSES
    reader = Reader(model)
    reader.read(lambda: model(x), labels)
    assert set(reader.plan.layouts.values()) == {Layout(0, 1, 1)}
    assert sorted(reader.plan.covered()) == sorted(name for name, _ in model.named_parameters())
