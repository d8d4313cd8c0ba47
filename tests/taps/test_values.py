"""Values made of parameters alone: class gradients are pulled back through how they were made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reading import CLASSES, Reader, assert_gram, assert_read, by_definition, grams
from torch import Tensor, nn
from torch.nn.utils import parametrizations

D = 6


class Model(nn.Module):
    """x [N, T, D] through a function of parameters, a nonlinearity and a linear head."""

    def __init__(
        self, function: Callable[[Tensor, dict[str, nn.Parameter]], Tensor], **shapes: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.function = function
        self.p = nn.ParameterDict({name: nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()})
        self.head = nn.LazyLinear(CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.function(x, dict(self.p.items()))).flatten(1))


def written(w: Tensor, how: str, x: Tensor | None = None) -> Tensor:
    v = w * 2
    if how == "in place":
        v.mul_(3)
    elif how == "in place twice":
        v.mul_(3)
        v += 1
    elif how == "an entry":
        v[0] = 0.0
    elif how == "a slice, by another":
        v[1:3] = w[:2]
    elif how == "data":
        assert x is not None
        v = v.expand(*x.shape[:-2], *v.shape).clone()
        v += x
    return v


VALUES: dict[str, tuple[Callable[..., Tensor], dict[str, tuple[int, ...]]]] = {
    "reshape": (lambda x, p: x @ p["w"].reshape(D, 4), {"w": (4, D)}),
    "reshape by name": (lambda x, p: x @ torch.reshape(input=p["w"], shape=(D, 4)), {"w": (4, D)}),
    "transpose": (lambda x, p: F.linear(x, p["w"].t()), {"w": (D, 4)}),
    "a matrix and its transpose": (lambda x, p: x @ p["w"] + x @ p["w"].T, {"w": (D, D)}),
    "slices": (lambda x, p: F.linear(x, p["w"][:4]) * F.linear(x, p["w"][4:8]), {"w": (9, D)}),
    "chunks": (lambda x, p: torch.add(*(F.linear(x, c) for c in p["w"].chunk(2))), {"w": (8, D)}),
    "split and unbind": (
        lambda x, p: torch.add(*(F.linear(x, *wb) for wb in zip(p["w"].split(4), p["b"].unbind(), strict=True))),
        {"w": (8, D), "b": (2, 4)},
    ),
    "an integer index": (lambda x, p: F.linear(x, p["w"][1]), {"w": (2, 4, D)}),
    "...": (lambda x, p: x * p["w"][..., None, 0].mT, {"w": (D, 2)}),
    "an index with repetition": (lambda x, p: F.linear(x, p["w"][torch.tensor([0, 2, 2, 1])]), {"w": (3, D)}),
    "a list with repetition": (lambda x, p: F.linear(x, p["w"][[0, 2, 2, 1]]), {"w": (3, D)}),
    "a tuple inside of an index": (lambda x, p: F.linear(x, p["w"][(0, 0), :]), {"w": (3, D)}),
    "index_select": (lambda x, p: F.linear(x, p["w"].index_select(0, torch.tensor([1, 1]))), {"w": (3, D)}),
    "cat of parameters": (lambda x, p: F.linear(x, torch.cat([p["a"], p["b"], p["a"]])), {"a": (2, D), "b": (3, D)}),
    "cat of slices": (lambda x, p: F.linear(x, torch.cat([p["w"][:2], p["w"][1:]])), {"w": (3, D)}),
    "w w^T": (lambda x, p: x @ (p["w"] @ p["w"].T), {"w": (D, 3)}),
    "a product of parameters": (lambda x, p: x @ (p["a"] @ p["b"]), {"a": (D, 2), "b": (2, 4)}),
    "a chain": (lambda x, p: x * (2.0 / p["w"].exp().sum(0)).view(-1)[None].sqrt(), {"w": (3, D)}),
    "a product of its parts": (lambda x, p: torch.addmm(p["w"][0], x[:, 0], p["w"]), {"w": (D, D)}),
    "used twice": (
        lambda x, p: (lambda v: torch.tanh(x @ v) @ v)(p["w"].reshape(D, D)),
        {"w": (D * D,)},
    ),
    "detached beside": (lambda x, p: F.linear(x, p["w"] / p["w"].detach().norm()), {"w": (3, D)}),
    "normed without gradient": (lambda x, p: F.linear(x, p["w"] / norm_of(p["w"])), {"w": (3, D)}),
    "with a constant": (lambda x, p: F.linear(x, p["w"] * torch.ones(D).cumsum(0)), {"w": (3, D)}),
    "another precision": (lambda x, p: F.linear(x.double(), p["w"].double()).float(), {"w": (3, D)}),
    **{
        f"written to: {how}": (lambda x, p, how=how: F.linear(x, written(p["w"], how)), {"w": (4, D)})
        for how in ("in place", "in place twice", "an entry", "a slice, by another")
    },
    "written to: data": (lambda x, p: written(p["w"], "data", x), {"w": (3, D)}),
}


def norm_of(w: Tensor) -> Tensor:
    with torch.no_grad():
        return w.square().sum().sqrt()


def made(function: Callable[..., Tensor], shapes: dict[str, tuple[int, ...]], x: Tensor) -> Model:
    torch.manual_seed(0)
    model = Model(function, **shapes)
    model(x)
    return model


@pytest.fixture
def x() -> Tensor:
    return torch.randn(24, 3, D, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", VALUES)
def test_class_gradients_are_pulled_back(name: str, x: Tensor, labels: Tensor) -> None:
    assert_read(made(*VALUES[name], x), x, labels)


NORMED = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal, exponential": lambda m: parametrizations.orthogonal(m, orthogonal_map="matrix_exp"),
    "orthogonal, cayley": lambda m: parametrizations.orthogonal(m, orthogonal_map="cayley"),
    "orthogonal, householder": lambda m: parametrizations.orthogonal(m, orthogonal_map="householder"),
}


@pytest.mark.parametrize("kind", NORMED)
@pytest.mark.parametrize("layer", ["linear", "conv"])
def test_parametrizations(kind: str, layer: str, labels: Tensor) -> None:
    torch.manual_seed(0)
    one = nn.Linear(12, 7) if layer == "linear" else nn.Conv1d(3, 8, 2)
    model = nn.Sequential(NORMED[kind](one), nn.Tanh(), nn.Flatten(), nn.LazyLinear(CLASSES))
    x = torch.randn(24, 12) if layer == "linear" else torch.randn(24, 3, 4)
    model(x)
    if kind == "spectral_norm":
        model.eval()  # in training mode every forward pass moves the estimate of the norm
    assert_read(model, x, labels)


def test_spectral_norm_moves_its_estimate(labels: Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(parametrizations.spectral_norm(nn.Linear(12, 7)), nn.Tanh(), nn.Linear(7, CLASSES))
    x, reader = torch.randn(24, 12), Reader(model)
    for _ in range(3):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        step = reader.read(lambda: model(x), labels)
        read = grams(step, [name for name, _ in model.named_parameters()])
        model.load_state_dict(before)
        expected = by_definition(model, x, labels)
        for name, gram in read.items():
            assert_gram(gram, expected[name], what=name)


def test_random_values_are_not_covered_and_draw_no_numbers(x: Tensor, labels: Tensor) -> None:
    model = made(lambda x, p: F.linear(x, F.dropout(p["w"], 0.5)), {"w": (3, D)}, x)
    reader = Reader(model)
    for _ in range(2):
        torch.manual_seed(3)
        F.cross_entropy(model(x), labels).backward()
        after = torch.get_rng_state()
        torch.manual_seed(3)
        reader.read(lambda: model(x), labels)
        assert torch.equal(torch.get_rng_state(), after)
    assert reader.plan.refused == {"p.w": "torch.nn.functional.linear with random numbers, which cannot be drawn again"}


def test_a_value_that_is_written_to_through_a_view_is_not_covered(x: Tensor, labels: Tensor) -> None:
    def function(x: Tensor, p: dict[str, Any]) -> Tensor:
        v = p["w"] * 2
        v[0].mul_(3)
        return F.linear(x, v)

    reader = Reader(made(function, {"w": (3, D)}, x))
    reader.read(lambda: reader.module(x), labels)
    assert reader.plan.refused == {"p.w": "a value made of it is written to through a view"}
    assert sorted(reader.plan.covered()) == ["head.bias", "head.weight"]


class Attention(nn.Module):
    """Multi-head attention, of tokens over themselves or over a memory."""

    def __init__(self, memory: int | None = None, *, masked: bool = False, **options: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, **options)
        self.head = nn.Linear(8, CLASSES)
        self.memory, self.masked = memory, masked

    def forward(self, x: Tensor) -> Tensor:
        tokens = x if self.attention.batch_first else x.transpose(0, 1)
        memory = tokens.roll(1, -1)[..., : self.memory] if self.memory else tokens
        masks: dict[str, Any] = {}
        if self.masked:
            masks["attn_mask"] = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
            masks["key_padding_mask"] = (torch.arange(5) == 3).expand(len(x), 5)
        y = self.attention(tokens, memory, memory, **masks)[0]
        return self.head(y.mean(1 if self.attention.batch_first else 0))


ATTENTION = {
    "self": lambda: Attention(batch_first=True),
    "self, sequence first": lambda: Attention(),
    "over a memory": lambda: Attention(8, batch_first=True),
    "over a memory of other width": lambda: Attention(6, kdim=6, vdim=6),
    "masked": lambda: Attention(batch_first=True, masked=True),
    "biases of keys": lambda: Attention(add_bias_kv=True, add_zero_attn=True, batch_first=True),
    "without biases": lambda: Attention(bias=False),
}


@pytest.mark.parametrize("kind", ATTENTION)
def test_multi_head_attention(kind: str, labels: Tensor) -> None:
    torch.manual_seed(0)
    model, x = ATTENTION[kind](), torch.randn(24, 5, 8)
    reader = assert_read(model, x, labels)
    plain = model(x)
    step = reader.step()
    assert torch.equal(reader.forward(step, labels, lambda: model(x)), plain), "outputs are bit-identical"


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn", "lstm, two layers, both ways"])
def test_recurrent_layers_are_run_again(kind: str, labels: Tensor) -> None:
    torch.manual_seed(0)

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            both = {"num_layers": 2, "bidirectional": True} if "two" in kind else {}
            layer = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[kind.split(",")[0]]
            self.layer = layer(3, 6, batch_first=True, **both)
            self.head = nn.Linear(12 if both else 6, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layer(x)[0].sum(1))

    assert_read(Recurrent(), torch.randn(24, 4, 3), labels)
