"""Each rule against the definition of a class gradient: the part that flows through the rows of the class.

G_c is the vector-Jacobian product with the output's gradient masked to the samples of class c. It holds for functions
that mix the samples too (batch normalisation in training mode), where it is not the gradient of the class's loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imbdyn.monitor.gradients import StepGradients
from imbdyn.taps import Coverage, Watch

CLASSES, N = 4, 15
Function = Callable[..., Tensor]


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, dtype=torch.float64))


def data(*shape: int) -> Tensor:
    return 3 + 2 * torch.randn(N, *shape, dtype=torch.float64)


def tokens(*shape: int) -> Tensor:
    return torch.randint(0, 9, (N, *shape))


STATISTICS = {"running_mean": torch.randn(6).double(), "running_var": torch.rand(6).double() + 0.5}

#: name -> (function, what comes before the parameters, parameters by argument name, the other arguments)
CASES: dict[str, tuple[Function, Callable[[], Any], dict[str, tuple[int, ...]], dict[str, Any]]] = {
    "linear": (F.linear, lambda: data(5), {"weight": (3, 5), "bias": (3,)}, {}),
    "linear of tokens": (F.linear, lambda: data(7, 2, 5), {"weight": (3, 5), "bias": (3,)}, {}),
    "linear of strided rows": (F.linear, lambda: data(5, 7).mT, {"weight": (3, 5), "bias": (3,)}, {}),
    "conv2d": (F.conv2d, lambda: data(2, 7, 6), {"weight": (3, 2, 3, 2), "bias": (3,)}, {}),
    "conv2d strided and dilated": (
        F.conv2d,
        lambda: data(2, 11, 12),
        {"weight": (3, 2, 2, 3)},
        {"stride": (2, 3), "dilation": (3, 2), "padding": (1, 2)},
    ),
    "conv2d same, even kernel": (
        F.conv2d,
        lambda: data(2, 6, 5),
        {"weight": (3, 2, 4, 2), "bias": (3,)},
        {"padding": "same", "dilation": (1, 2)},
    ),
    "conv2d channels last": (
        F.conv2d,
        lambda: data(2, 6, 5).contiguous(memory_format=torch.channels_last),
        {"weight": (3, 2, 3, 3), "bias": (3,)},
        {"padding": 1},
    ),
    "layer_norm": (F.layer_norm, lambda: data(6), {"weight": (6,), "bias": (6,)}, {"normalized_shape": (6,)}),
    "layer_norm of tokens": (
        F.layer_norm,
        lambda: data(4, 3, 2),
        {"weight": (3, 2), "bias": (3, 2)},
        {"normalized_shape": (3, 2), "eps": 0.1},
    ),
    "rms_norm": (F.rms_norm, lambda: data(4, 6), {"weight": (6,)}, {"normalized_shape": (6,)}),
    "group_norm": (F.group_norm, lambda: data(6, 5, 4), {"weight": (6,), "bias": (6,)}, {"num_groups": 3}),
    "batch_norm, training": (
        F.batch_norm,
        lambda: data(6, 5, 4),
        {"weight": (6,), "bias": (6,)},
        {**STATISTICS, "training": True},
    ),
    "batch_norm, training, vectors": (
        F.batch_norm,
        lambda: data(6),
        {"weight": (6,), "bias": (6,)},
        {"running_mean": None, "running_var": None, "training": True},
    ),
    "batch_norm, eval": (F.batch_norm, lambda: data(6, 5), {"weight": (6,), "bias": (6,)}, STATISTICS),
    "embedding": (F.embedding, lambda: tokens(7), {"weight": (9, 5)}, {}),
    "embedding, padding": (F.embedding, lambda: tokens(7), {"weight": (9, 5)}, {"padding_idx": -3}),
    "embedding, one token": (F.embedding, tokens, {"weight": (9, 5)}, {"sparse": True}),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", CASES)
def test_class_gradients_are_what_flows_through_the_rows_of_the_class(name: str) -> None:
    torch.manual_seed(0)
    function, make, shapes, others = CASES[name]
    x, parameters = make(), {argument: parameter(*shape) for argument, shape in shapes.items()}
    labels = torch.randint(0, CLASSES - 1, (N,))  # the last class is absent
    coverage = Coverage()
    watch = Watch({id(p): argument for argument, p in parameters.items()}, labels, coverage)
    with watch:
        y = function(x, **parameters, **others)
    dy = torch.randn_like(y)
    masked = [dy * (labels == c).view(-1, *[1] * (y.dim() - 1)) for c in range(CLASSES)]
    expected = [torch.autograd.grad(y, list(parameters.values()), m, retain_graph=True) for m in masked]
    watch.rows.clear()  # the hooks saw the masked gradients too
    y.backward(dy)

    assert coverage.covered() == list(parameters)
    gradients = StepGradients(CLASSES, -100)
    gradients.add(watch)
    read = gradients.grams(list(parameters))
    for i, argument in enumerate(parameters):
        g = torch.stack([(e[i].to_dense() if e[i].is_sparse else e[i]).flatten() for e in expected])
        g = g[torch.as_tensor(read.class_ids)]
        torch.testing.assert_close(torch.as_tensor(read.gram[i]), g @ g.T, rtol=1e-9, atol=1e-9, msg=argument)


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"max_norm": 1.0}, "max_norm"), ({"scale_grad_by_freq": True}, "scale_grad_by_freq")],
)
def test_embeddings_that_cannot_be_read_are_named(options: dict[str, Any], reason: str) -> None:
    weight, coverage = parameter(9, 5), Coverage()
    if "max_norm" in options:
        weight = nn.Parameter(weight.detach().float())
    with Watch({id(weight): "weight"}, torch.zeros(N, dtype=torch.int64), coverage):
        F.embedding(tokens(3), weight, **options)
    assert coverage.covered() == []
    assert reason in coverage.refused["weight"]


def test_running_statistics_may_move_between_forward_and_backward() -> None:
    x, weight = data(6), parameter(6)
    mean, variance = torch.zeros(6).double(), torch.ones(6).double()
    labels = torch.zeros(N, dtype=torch.int64)
    watch = Watch({id(weight): "weight"}, labels, Coverage())
    with watch:
        y = F.batch_norm(x, mean, variance, weight)
    y.sum().backward()
    mean += 100
    gradients = StepGradients(1, -100)
    gradients.add(watch)
    assert weight.grad is not None
    assert gradients.grams(["weight"]).gram[0, 0, 0] == pytest.approx(float(weight.grad.square().sum()))
