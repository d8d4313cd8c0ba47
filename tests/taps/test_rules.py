"""Each watched function against the definition of a class gradient: the part that flows through the rows of the class.

G_c is the vector-Jacobian product with the result's gradient masked to the samples of class c. It holds for functions
that mix the samples too (batch normalisation in training mode), where it is not the gradient of the class's loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reading import CLASSES, Reader, assert_gram, grams, through_rows
from torch import Tensor, nn

N = 15
Parameters = dict[str, nn.Parameter]


@dataclass
class Case:
    """A function of data and parameters; its result's batch is in dimension `axis`."""

    function: Callable[[Tensor, Parameters], Tensor]
    data: Callable[[], Tensor]
    shapes: dict[str, tuple[int, ...]]
    axis: int = 0
    learn: int = 1


def data(*shape: int) -> Callable[[], Tensor]:
    return lambda: 3 + 2 * torch.randn(N, *shape, dtype=torch.float64)


def tokens(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randint(0, 9, (N, *shape))


def call(function: Callable[..., Tensor], make: Callable[[], Tensor], *, w: Any, **others: Any) -> Case:
    """`function(x, weight=..., bias=..., **others)`."""
    return Case(lambda x, p: function(x, **p, **others), make, w)


STATISTICS = {"running_mean": torch.randn(6).double(), "running_var": torch.rand(6).double() + 0.5}
NORM = {"weight": (6,), "bias": (6,)}

CASES: dict[str, Case] = {
    "linear": call(F.linear, data(5), w={"weight": (3, 5), "bias": (3,)}),
    "linear of tokens": call(F.linear, data(7, 2, 5), w={"weight": (3, 5), "bias": (3,)}),
    "linear of strided rows": Case(lambda x, p: F.linear(x.mT, p["w"], p["b"]), data(5, 7), {"w": (3, 5), "b": (3,)}),
    "linear with one output, a vector": Case(lambda x, p: F.linear(x, p["w"]), data(5), {"w": (5,)}),
    "addmm": Case(lambda x, p: torch.addmm(p["b"], x, p["w"], beta=0.5, alpha=3), data(5), {"w": (5, 3), "b": (3,)}),
    "addmm, a method": Case(lambda x, p: p["b"].addmm(x, p["w"]), data(5), {"w": (5, 3), "b": (1, 1)}),
    "x @ W": Case(lambda x, p: x @ p["w"], data(7, 5), {"w": (5, 3)}),
    "x @ w": Case(lambda x, p: x @ p["w"], data(7, 5), {"w": (5,)}),
    "x @ W, a weight for each head": Case(lambda x, p: x @ p["w"], data(2, 7, 5), {"w": (2, 5, 3)}),
    "W @ x": Case(lambda x, p: p["w"] @ x, data(5, 7), {"w": (3, 5)}),
    "w @ x": Case(lambda x, p: p["w"] @ x, data(5, 7), {"w": (5,)}),
    "W @ x, the batch last": Case(lambda x, p: p["w"] @ x.mT, data(5), {"w": (3, 5)}, axis=1),
    "W @ x, the batch last of three": Case(lambda x, p: p["w"] @ x.permute(1, 2, 0), data(4, N), {"w": (3, N)}, axis=2),
    "matmul": Case(lambda x, p: torch.matmul(x, p["w"]), data(5), {"w": (5, 3)}),
    "mm": Case(lambda x, p: torch.mm(x, p["w"]), data(5), {"w": (5, 3)}),
    "mm, the weight first": Case(lambda x, p: p["w"].mm(x.mT).mT, data(5), {"w": (3, 5)}, learn=1),
    "bmm": Case(lambda x, p: torch.bmm(x, p["w"].expand(N, 5, 3)), data(7, 5), {"w": (5, 3)}),
    "einsum": Case(lambda x, p: torch.einsum("nti,hio->nhto", x, p["w"]), data(7, 5), {"w": (2, 5, 3)}),
    "einsum of two parameters": Case(
        lambda x, p: torch.einsum("nti,ir,ro->nto", x, p["a"], p["b"]), data(7, 5), {"a": (5, 2), "b": (2, 3)}
    ),
    "einsum of a list": Case(lambda x, p: torch.einsum("ni,io->no", [x, p["w"]]), data(5), {"w": (5, 3)}),
    "tensordot": Case(lambda x, p: torch.tensordot(x, p["w"], dims=([1], [0])), data(5, 7), {"w": (5, 3)}),
    "bilinear": Case(
        lambda x, p: F.bilinear(x[:, 0], x[:, 1], p["w"], p["b"]), data(2, 5), {"w": (3, 5, 5), "b": (3,)}
    ),
    "addcmul": Case(lambda x, p: torch.addcmul(p["b"], x, p["w"], value=2), data(7, 5), {"w": (5,), "b": (7, 1)}),
    "conv1d": call(F.conv1d, data(2, 9), w={"weight": (3, 2, 4), "bias": (3,)}, stride=2, padding=3, dilation=2),
    "conv2d": call(F.conv2d, data(2, 7, 6), w={"weight": (3, 2, 3, 2), "bias": (3,)}),
    "conv2d strided and dilated": call(
        F.conv2d, data(2, 11, 12), w={"weight": (3, 2, 2, 3)}, stride=(2, 3), dilation=(3, 2), padding=(1, 2)
    ),
    "conv2d strided over what is left": call(F.conv2d, data(2, 8, 9), w={"weight": (3, 2, 3, 2)}, stride=[3, 4]),
    "conv2d same, even kernel": call(
        F.conv2d, data(2, 6, 5), w={"weight": (3, 2, 4, 2), "bias": (3,)}, padding="same", dilation=(1, 2)
    ),
    "conv2d valid": call(F.conv2d, data(2, 6, 5), w={"weight": (3, 2, 4, 2)}, padding="valid"),
    "conv2d grouped": call(F.conv2d, data(4, 6, 5), w={"weight": (6, 2, 3, 3), "bias": (6,)}, groups=2, padding=1),
    "conv2d depthwise": call(F.conv2d, data(4, 6, 5), w={"weight": (4, 1, 3, 3)}, groups=4, padding=(1,)),
    "conv2d channels last": Case(
        lambda x, p: F.conv2d(x.contiguous(memory_format=torch.channels_last), **p, padding=1),
        data(2, 6, 5),
        {"weight": (3, 2, 3, 3), "bias": (3,)},
    ),
    "conv3d": call(F.conv3d, data(2, 4, 5, 3), w={"weight": (3, 2, 2, 3, 1), "bias": (3,)}, padding=(1, 0, 1)),
    "conv_transpose1d": call(F.conv_transpose1d, data(3, 5), w={"weight": (3, 2, 4), "bias": (2,)}, stride=2),
    "conv_transpose2d": call(
        F.conv_transpose2d,
        data(4, 5, 4),
        w={"weight": (4, 3, 3, 2), "bias": (6,)},
        stride=(2, 3),
        padding=1,
        output_padding=(1, 2),
        groups=2,
        dilation=(1, 2),
    ),
    "conv_transpose2d, output_padding beyond the stride": call(
        F.conv_transpose2d, data(2, 5, 4), w={"weight": (2, 3, 3, 2)}, output_padding=(2, 1), dilation=3, padding=(1, 0)
    ),
    "conv_transpose3d": call(F.conv_transpose3d, data(2, 3, 2, 3), w={"weight": (2, 3, 2, 1, 2)}, stride=2),
    "layer_norm": call(F.layer_norm, data(6), w=NORM, normalized_shape=(6,)),
    "layer_norm of tokens": call(
        F.layer_norm, data(4, 3, 2), w={"weight": (3, 2), "bias": (3, 2)}, normalized_shape=(3, 2), eps=0.1
    ),
    "rms_norm": call(F.rms_norm, data(4, 6), w={"weight": (6,)}, normalized_shape=(6,)),
    "group_norm": call(F.group_norm, data(6, 5, 4), w=NORM, num_groups=3),
    "instance_norm": call(F.instance_norm, data(6, 5, 4), w=NORM),
    "instance_norm, running": call(F.instance_norm, data(6, 5), w=NORM, use_input_stats=False, **STATISTICS),
    "batch_norm, training": call(F.batch_norm, data(6, 5, 4), w=NORM, training=True, **STATISTICS),
    "batch_norm, training, vectors": call(
        F.batch_norm, data(6), w=NORM, training=True, running_mean=None, running_var=None
    ),
    "batch_norm, eval": call(F.batch_norm, data(6, 5), w=NORM, **STATISTICS),
    "embedding": call(F.embedding, tokens(7), w={"weight": (9, 5)}),
    "embedding, padding": call(F.embedding, tokens(7), w={"weight": (9, 5)}, padding_idx=-3),
    "embedding, one token": call(F.embedding, tokens(), w={"weight": (9, 5)}, sparse=True),
    "embedding, by frequency": call(F.embedding, tokens(7), w={"weight": (9, 5)}, scale_grad_by_freq=True),
    "embedding_bag": call(F.embedding_bag, tokens(7), w={"weight": (9, 5)}),
    "embedding_bag, sum": call(F.embedding_bag, tokens(7), w={"weight": (9, 5)}, mode="sum", sparse=True),
    "embedding_bag, max": call(F.embedding_bag, tokens(7), w={"weight": (9, 5)}, mode="max"),
    "embedding_bag, padding": call(F.embedding_bag, tokens(7), w={"weight": (9, 5)}, padding_idx=4),
    "embedding_bag, weighted": Case(
        lambda x, p: F.embedding_bag(x, **p, mode="sum"), tokens(7), {"weight": (9, 5), "per_sample_weights": (N, 7)}
    ),
    "embedding_bag, offsets and an empty bag": Case(
        lambda x, p: F.embedding_bag(x.flatten(), p["w"], torch.tensor([0, *range(2, 2 * N - 2, 2), 2 * N - 4])),
        tokens(2),
        {"w": (9, 5)},
    ),
    "embedding_bag, last offset": Case(
        lambda x, p: F.embedding_bag(
            x.flatten(), p["w"], torch.arange(N + 1) * 2, include_last_offset=True, mode="sum"
        ),
        tokens(2),
        {"w": (9, 5)},
    ),
    "+": Case(lambda x, p: p["b"] + (x + p["a"]), data(4, 3), {"a": (3,), "b": (4, 1)}),
    "+, a number": Case(lambda x, p: x + p["a"], data(4, 3), {"a": ()}),
    "+, alpha": Case(lambda x, p: torch.add(x, p["a"], alpha=-3), data(4, 3), {"a": (1, 1, 3)}),
    "+, an entry for each sample": Case(lambda x, p: x + p["a"], data(4, 3), {"a": (N, 4, 1)}),
    "-": Case(lambda x, p: p["b"] - (x - p["a"]), data(4, 3), {"a": (3,), "b": (4, 1)}),
    "-, alpha": Case(lambda x, p: torch.sub(x, p["a"], alpha=-3), data(4, 3), {"a": (4, 3)}),
    "-, rsub": Case(lambda x, p: torch.rsub(p["a"], x, alpha=2), data(4, 3), {"a": (4, 3)}),
    "*": Case(lambda x, p: p["b"] * (x * p["a"]), data(4, 3), {"a": (3,), "b": (4, 1)}),
    "*, alone by sample": Case(lambda x, p: p["b"] * x, data(), {"b": ()}),
    "/": Case(lambda x, p: p["b"] / (x / p["a"]), data(4, 3), {"a": (3,), "b": (4, 1)}),
    "+= of a view": Case(lambda x, p: x.mul(2).flatten(1).add_(p["a"]), data(4, 3), {"a": (12,)}),
    "expand": Case(lambda x, p: torch.cat([p["a"].expand(N, -1, 3), x], 1), data(4, 3), {"a": (1, 2, 1)}),
    "expand_as": Case(lambda x, p: p["a"].expand_as(x).mul(x), data(4, 3), {"a": (4, 1)}),
    "broadcast_to": Case(lambda x, p: torch.broadcast_to(p["a"], x.shape).mul(x), data(4, 3), {"a": (4, 1)}),
    "repeat": Case(lambda x, p: p["a"].repeat(N, 1, 1) * x, data(4, 3), {"a": (4, 3)}),
    "repeat of a whole": Case(lambda x, p: p["a"].repeat(N, 2, 1) * x, data(4, 3), {"a": (2, 3)}),
    "prelu": call(F.prelu, lambda: torch.randn(N, 6, 4).double(), w={"weight": (6,)}),
    "cat with data": Case(
        lambda x, p: torch.cat([x, p["a"].expand(N, 3)], 1) * p["b"], data(4), {"a": (3,), "b": (7,)}
    ),
    "where": Case(lambda x, p: torch.where(x > 3, x, p["a"]), data(4, 3), {"a": (3,)}),
    "several results": Case(lambda x, p: torch.add(*torch.split(x * p["a"], 2, 1)), data(4, 3), {"a": (3,)}),
}


def in_place(name: str) -> Callable[[Tensor, Parameters], Tensor]:
    def function(x: Tensor, p: Parameters) -> Tensor:
        y = x * 2
        if name == "+=":
            y += p["a"]
        elif name == "-=":
            y -= p["a"]
        elif name == "*=":
            y *= p["a"]
        else:
            y /= p["a"]
        return y

    return function


CASES |= {name: Case(in_place(name), data(4, 3), {"a": (4, 1)}) for name in ("+=", "-=", "*=", "/=")}


class Module(nn.Module):
    """The parameters of a case."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        for name, shape in case.shapes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape, dtype=torch.float64)))
        self.case = case

    def forward(self, x: Tensor) -> Tensor:
        return self.case.function(x, dict(self.named_parameters()))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", CASES)
def test_class_gradients_are_what_flows_through_the_rows_of_the_class(name: str) -> None:
    torch.manual_seed(0)
    case = CASES[name]
    model, x = Module(case), case.data()
    labels = torch.randint(0, CLASSES - 1, (N,))  # the last class is absent
    y = model(x)
    dy = torch.randn_like(y)
    names = list(case.shapes)
    expected = dict(zip(names, through_rows(y, dy, labels, list(model.parameters()), case.axis), strict=True))
    reader = Reader(model)
    for at_once in (True, True, False):
        # the experiment looks at an output whose first dimension is the batch
        step = reader.step(at_once=at_once)
        lesson = reader.begin(step, labels)
        with reader.watch:
            y = model(x)
        reader.resolve(lesson, y.movedim(case.axis, 0))
        reader.end(lesson)
        y.backward(dy)
        assert reader.plan.refused == {}
        assert sorted(reader.plan.covered()) == sorted(names)
        for parameter, gram in grams(step, names).items():
            assert_gram(gram, expected[parameter], 1e-9, parameter)
    assert reader.lessons == case.learn
