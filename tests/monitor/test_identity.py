"""The instrument proves itself: every parameter's Gram matrix sums to ||p.grad||^2, however the loss is made."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loops import CLASSES, monitored, train
from torch import Tensor, nn

from imbdyn import ImbdynWarning, Monitor, open_trace
from imbdyn.reference import class_gradients

#: What float32 gives; the sum of squares that the residual compares carries one rounding a product.
FLOAT32 = 1e-6

WEIGHT = torch.tensor([0.5, 1.0, 2.0, 3.0, 4.0])


def with_ignored(labels: Tensor) -> Tensor:
    return torch.where(torch.arange(len(labels)) % 3 == 0, -100, labels)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("ignored", [False, True], ids=["all", "some ignored"])
def test_gram_matrices_sum_to_the_gradient_norm(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    tmp_path: Path,
    reduction: str,
    weight: Tensor | None,
    ignored: bool,
) -> None:
    labels = with_ignored(labels) if ignored else labels
    trace = monitored(
        network,
        [(images, labels)] * 3,
        tmp_path / "run",
        criterion=lambda z, y: F.cross_entropy(z, y, weight=weight, reduction=reduction),
    )
    parameters = trace.parameters
    assert len(parameters) == 3 * len(list(network.parameters()))
    assert parameters.residual.notna().all()
    assert parameters.residual.max() <= FLOAT32
    np.testing.assert_allclose(trace.steps.grad_scale, 1.0, rtol=1e-5)
    assert trace.run["coverage"]["share"] == 1.0


@pytest.mark.parametrize("size", [0, 1, 2])
def test_batches_of_none_one_and_two(
    network: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path, size: int
) -> None:
    criterion = partial(F.cross_entropy, reduction="sum")
    trace = monitored(network, [(images[:size], labels[:size])], tmp_path / "run", criterion=criterion)
    assert trace.parameters.residual.max() <= FLOAT32
    assert trace.class_gradients["count"].sum() == size * trace.class_gradients.parameter.nunique()


def test_class_gradients_are_those_of_one_backward_a_class(
    network: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    losses = F.cross_entropy(network(images), labels, reduction="none") / len(labels)
    gradients = class_gradients(losses, labels, CLASSES, network.named_parameters())
    trace = monitored(network, [(images, labels)], tmp_path / "run")
    read = trace.class_gradients.set_index(["parameter", "class_id"])
    pairs = trace.class_gradient_pairs.set_index(["parameter", "class_a", "class_b"])
    whole = torch.cat([g.flatten(1) for g in gradients.values()], 1).double()
    for name, g in [*((n, g.flatten(1).double()) for n, g in gradients.items()), ("*", whole)]:
        norm, total = g.norm(dim=1), g.sum(0)
        for c in (0, 1, 2, 4):
            row = read.loc[(name, c)]
            assert row["count"] == (labels == c).sum()
            assert row.grad_norm == pytest.approx(float(norm[c]), rel=1e-5)
            assert row.grad_cos_total == pytest.approx(float(g[c] @ total / norm[c] / total.norm()), abs=1e-5)
            assert row.grad_share == pytest.approx(float(g[c] @ total / total.square().sum()), abs=1e-4)
            for b in (1, 2, 4):
                if c < b:
                    expected = float(g[c] @ g[b] / norm[c] / norm[b])
                    assert pairs.loc[(name, c, b)].grad_cos == pytest.approx(expected, abs=1e-5)
    assert 3 not in trace.class_gradients.class_id.unique(), "an absent class has no row, never a 0"


def test_micro_batches_join_into_one_problem(
    network: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    halves = [(images[:12], labels[:12]), (images[12:], labels[12:])]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    joined = monitored(
        network, halves, tmp_path / "joined", micro_batches=2, criterion=lambda z, y: F.cross_entropy(z, y) / 2
    )
    network.load_state_dict(state)
    network.zero_grad()
    whole = monitored(network, [(images, labels)], tmp_path / "whole")
    assert joined.steps[["step", "batches", "gradient_batches"]].to_numpy().tolist() == [[1, 2, 2]]
    assert joined.parameters.residual.max() <= FLOAT32
    pairs = joined.class_gradients.merge(whole.class_gradients, on=["parameter", "class_id"])
    assert len(pairs) == len(whole.class_gradients)
    np.testing.assert_allclose(pairs.grad_norm_x, pairs.grad_norm_y, rtol=1e-4, atol=1e-7)


def test_clipping_is_one_common_scale(network: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    trace = monitored(network, [(images, labels)], tmp_path / "run", clip=1e-3)
    step = trace.steps.iloc[0]
    assert step.grad_norm == pytest.approx(1e-3, rel=1e-4)
    assert 0 < step.grad_scale < 1
    assert trace.parameters.residual.max() <= FLOAT32
    whole = trace.class_gradients[trace.class_gradients.parameter == "*"]
    assert float((whole.grad_norm * whole.grad_cos_total).sum()) == pytest.approx(1e-3, rel=1e-4)


def test_a_loss_scale_is_one_common_scale(network: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with Monitor(network, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        with monitor.batch(labels):
            (1024 * F.cross_entropy(network(images), labels)).backward()
        for p in network.parameters():
            assert p.grad is not None
            p.grad /= 1024
        optimizer.step()
    trace = open_trace(tmp_path / "run")
    assert trace.steps.grad_scale[0] == pytest.approx(1 / 1024, rel=1e-5)
    assert trace.parameters.residual.max() <= FLOAT32


def test_a_gradient_from_elsewhere_is_one_loud_warning(
    network: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with Monitor(network, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        with monitor.batch(labels):
            F.cross_entropy(network(images), labels).backward()
        assert network.head.bias.grad is not None
        network.head.bias.grad += 1.0
        with pytest.warns(ImbdynWarning, match=r"class gradients of head\.bias do not sum to its gradient at step 1"):
            optimizer.step()
    residual = open_trace(tmp_path / "run").parameters.set_index("parameter").residual
    assert residual["head.bias"] > 1e-2
    assert residual.drop("head.bias").max() <= FLOAT32


def test_class_gradients_by_their_definition_of_an_embedding_with_sparse_gradients() -> None:
    words, labels = torch.arange(24).view(8, 3) % 7, torch.arange(8) % CLASSES
    dense = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, CLASSES))
    sparse = copy.deepcopy(dense)
    sparse[0].sparse = True
    by_definition = [
        class_gradients(F.cross_entropy(m(words), labels, reduction="none"), labels, CLASSES, m.named_parameters())
        for m in (dense, sparse)
    ]
    assert by_definition[0]["0.weight"].any()
    for name, gradient in by_definition[0].items():
        torch.testing.assert_close(by_definition[1][name], gradient)


def test_float64_is_exact_to_float64(network: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    trace = monitored(network.double(), [(images.double(), labels)], tmp_path / "run")
    assert trace.parameters.residual.max() <= 1e-14


def test_a_step_that_was_thrown_away_leaves_nothing_behind(
    network: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    """A GradScaler that finds an inf skips optimizer.step(); zero_grad() follows."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with Monitor(network, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        for taken in (False, True):
            with monitor.batch(labels):
                F.cross_entropy(network(images), labels).backward()
            if taken:
                optimizer.step()
            optimizer.zero_grad()
    trace = open_trace(tmp_path / "run")
    assert trace.parameters.residual.max() <= FLOAT32
    assert trace.steps[["step", "batches", "gradient_batches"]].to_numpy().tolist() == [[1, 1, 1]]


def test_an_optimizer_step_inside_the_batch_is_read_too(
    network: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with Monitor(network, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        for _ in range(2):
            with monitor.batch(labels):
                optimizer.zero_grad()
                F.cross_entropy(network(images), labels).backward()
                optimizer.step()
    trace = open_trace(tmp_path / "run")
    assert trace.run["coverage"]["share"] == 1.0
    assert trace.parameters.residual.notna().all()
    assert trace.parameters.residual.max() <= FLOAT32
    assert trace.steps[["step", "count", "batches", "gradient_batches"]].to_numpy().tolist() == [
        [1, 24, 1, 1],
        [2, 24, 1, 1],
    ]


def test_of_two_optimizers_only_the_parameters_of_the_monitored_one_are_read(
    network: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    head, body = (
        torch.optim.SGD([p for n, p in network.named_parameters() if n.startswith("head") == of_head], lr=0.1)
        for of_head in (True, False)
    )
    with Monitor(network, body, CLASSES, tmp_path / "run", interval=1) as monitor:
        with monitor.batch(labels):
            F.cross_entropy(network(images), labels).backward()
        head.step()
        body.step()
    parameters = open_trace(tmp_path / "run").parameters
    assert not parameters.parameter.str.startswith("head").any()
    assert (parameters.update_norm > 0).all()
    assert parameters.residual.max() <= FLOAT32


def test_an_ignore_index_beyond_the_classes(network: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    labels = torch.where(torch.arange(24) % 3 == 0, 255, labels)
    trace = monitored(
        network,
        [(images, labels)],
        tmp_path / "run",
        ignore_index=255,
        criterion=lambda z, y: F.cross_entropy(z, y, ignore_index=255),
    )
    assert trace.parameters.residual.max() <= FLOAT32
    assert trace.run["class_counts"] == torch.bincount(labels[labels != 255], minlength=CLASSES).tolist()


def test_a_parameter_whose_rows_never_come_is_not_called_covered(
    images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    class Product(torch.autograd.Function):
        """Hides what it does with the weight; its second use, in the open, is found by the lesson."""

        @staticmethod
        def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
            ctx.save_for_backward(x, weight)
            return x @ weight.T

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
            x, weight = ctx.saved_tensors
            return grads[0] @ weight, grads[0].T @ x

    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head, self.open = nn.Linear(72, 8), nn.Linear(8, CLASSES), True

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1)
            h = F.linear(x, self.body.weight) if self.open else Product.apply(x, self.body.weight)
            return self.head(h + self.body.bias)

    model = Hidden()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        train(model, [(images, labels)], optimizer=optimizer, monitor=monitor)
        model.open = False
        with pytest.warns(
            ImbdynWarning, match=r"not covered: body\.weight \(its rows did not come in the backward pass"
        ):
            train(model, [(images, labels)] * 2, optimizer=optimizer, monitor=monitor)
    trace = open_trace(tmp_path / "run")
    covered = {name: about["covered"] for name, about in trace.run["coverage"]["parameters"].items()}
    assert covered == {"body.weight": False, "body.bias": True, "head.weight": True, "head.bias": True}
    assert "body.weight" in set(trace.class_gradients.query("step == 1").parameter)
    assert set(trace.class_gradients.query("step > 1").parameter) == {"body.bias", "head.weight", "head.bias", "*"}
