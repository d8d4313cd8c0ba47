"""Soft labels (mixup, CutMix, distillation): each class gets the share of its weight of every sample's gradient."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from networks import Mlp
from torch import Tensor, nn
from ways import CLASSES, assert_exact, assert_read, assert_same_class_gradients, by_loss, one_step

from imbdyn import Monitor, open_trace


def by_shares(model: nn.Module, losses: Tensor, shares: Tensor) -> dict[str, Tensor]:
    """Masked backward passes: class c's gradient is that of sum_i shares[i, c] losses[i]."""
    of_class = [
        by_loss(model, losses * shares[:, c], torch.zeros(len(shares), dtype=torch.int64)) for c in range(CLASSES)
    ]
    return {name: torch.stack([g[name][0] for g in of_class]) for name in of_class[0]}


def soft_cross_entropy(z: Tensor, q: Tensor) -> Tensor:
    return -(q * F.log_softmax(z, 1)).sum(1) / len(q)


def mixed(x: Tensor, y: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Mixup of each sample with the one seven places on; the soft labels of some samples are of one class."""
    one_hot = F.one_hot(y, CLASSES).float()
    return share * x + (1 - share) * x.roll(7, 0), share * one_hot + (1 - share) * one_hot.roll(7, 0)


@pytest.mark.parametrize("share", [0.7, 0.5])
def test_mixup_shares_every_sample_between_its_two_classes(
    network: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path, share: float
) -> None:
    x, soft = mixed(images, labels, share)
    losses = soft_cross_entropy(network(x), soft)
    of_first, of_second = by_loss(network, losses, labels), by_loss(network, losses, labels.roll(7))
    expected = {name: share * of_first[name] + (1 - share) * of_second[name] for name in of_first}
    trace = one_step(network, soft, lambda: soft_cross_entropy(network(x), soft).sum().backward(), tmp_path / "run")
    assert_exact(trace)
    for step in (1, 3):
        assert_read(trace, expected, step=step)
    counts = trace.class_gradients.query("parameter == '*' and step == 1").set_index("class_id")["count"]
    both = (soft > 0).sum(0)
    assert counts.to_dict() == {c: int(both[c]) for c in (0, 1, 2, 4)}, "samples in which the class has a weight"


def test_shares_of_all_classes(network: nn.Module, images: Tensor, tmp_path: Path) -> None:
    """As in distillation; the rows' sums do not matter."""
    teacher = torch.rand(24, CLASSES, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    shares = (teacher / teacher.sum(1, keepdim=True)).float()
    expected = by_shares(network, soft_cross_entropy(network(images), shares), shares)
    trace = one_step(
        network, teacher, lambda: soft_cross_entropy(network(images), shares).sum().backward(), tmp_path / "run"
    )
    assert_exact(trace)
    assert_read(trace, expected, step=2)


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_one_hot_labels_are_labels(
    network: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path, micro_batches: int
) -> None:
    def read(given: Tensor, out: str) -> None:
        optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
        with Monitor(network, optimizer, CLASSES, tmp_path / out, interval=1) as monitor:
            for _ in range(3):
                for part in torch.arange(24).chunk(micro_batches):
                    with monitor.batch(given[part]):
                        F.cross_entropy(network(images[part]), labels[part], reduction="sum").backward()
                optimizer.step()
                optimizer.zero_grad()

    read(labels, "int")
    read(F.one_hot(labels, CLASSES).double(), "soft")
    hard, soft = open_trace(tmp_path / "int"), open_trace(tmp_path / "soft")
    assert soft.run["class_counts"] == hard.run["class_counts"]
    for table in ("classes", "class_gradients", "class_gradient_pairs"):
        assert len(getattr(hard, table)) > 0
        pd.testing.assert_frame_equal(getattr(hard, table), getattr(soft, table), check_exact=True)


def test_soft_and_hard_micro_batches_in_one_step(images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Mlp(features=72)
    x, soft = mixed(images, labels, 0.7)
    ignored = torch.where(torch.arange(24) < 5, -100, labels)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        for _ in range(3):
            with monitor.batch(soft):
                soft_cross_entropy(model(x), soft).sum().backward()
            with monitor.batch(ignored):
                F.cross_entropy(model(images), ignored).backward()
            optimizer.step()
            optimizer.zero_grad()
    a = by_shares(model, soft_cross_entropy(model(x), soft), soft)
    b = by_loss(model, F.cross_entropy(model(images), ignored, reduction="none") / 19, ignored)
    trace = open_trace(tmp_path / "run")
    assert_exact(trace)
    assert_read(trace, {name: a[name] + b[name] for name in a}, step=2)


def test_rates_and_counts_are_those_of_the_heaviest_class(
    network: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    x, soft = mixed(images, labels, 0.7)

    def read(given: Tensor, out: str) -> None:
        optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
        with Monitor(network, optimizer, CLASSES, tmp_path / out, interval=1) as monitor:
            with monitor.batch(given):
                soft_cross_entropy(network(x), soft).sum().backward()
            optimizer.step()
            with torch.no_grad(), monitor.evaluate("test"), monitor.batch(given):
                network(x)

    read(soft, "soft")
    read(labels, "int")
    a, b = open_trace(tmp_path / "soft"), open_trace(tmp_path / "int")
    assert a.run["class_counts"] == b.run["class_counts"] == torch.bincount(labels, minlength=CLASSES).tolist()
    for table in ("classes", "features", "class_features"):
        assert len(getattr(a, table)) > 0
        pd.testing.assert_frame_equal(getattr(a, table), getattr(b, table), check_exact=True)


def test_soft_labels_that_are_no_shares(images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    model = Mlp(features=72)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    good = F.one_hot(labels, CLASSES).float()

    def changed(row: int, value: float) -> Tensor:
        wrong = good.clone()
        wrong[row] *= 0
        wrong[row, 0] = value
        return wrong

    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        for row, value in ((3, -0.5), (5, 0.0), (7, torch.nan), (9, torch.inf)):
            with pytest.raises(ValueError, match=rf"labels\[{row}\] is \[.*finite, not negative, and not all zero"):
                monitor.batch(changed(row, value))
            with monitor.evaluate(f"test {row}"), pytest.raises(ValueError, match=rf"labels\[{row}\] is"):
                monitor.batch(changed(row, value))
        with pytest.raises(ValueError, match=r"soft labels must be \[N, num_classes=5\], got \[24, 4\]"):
            monitor.batch(good[:, :4])
        with pytest.raises(
            TypeError, match=r"int64 \[N\], or soft, floating point \[N, C\], got torch\.int64 \[24, 5\]"
        ):
            monitor.batch(good.long())
        with monitor.batch(good):
            F.cross_entropy(model(images), good).backward()
        optimizer.step()
    assert open_trace(tmp_path / "run").steps["count"].tolist() == [24]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_soft_labels_of_other_precisions(images: Tensor, labels: Tensor, tmp_path: Path, dtype: torch.dtype) -> None:
    """A half and a quarter are exact in all of them."""
    torch.manual_seed(0)
    model = Mlp(features=72)
    x, soft = mixed(images, labels, 0.75)

    def backward() -> None:
        soft_cross_entropy(model(x), soft).sum().backward()

    a = one_step(model, soft.to(dtype), backward, tmp_path / "a")
    b = one_step(model, soft, backward, tmp_path / "b")
    assert_exact(a)
    assert_same_class_gradients(a, b, rtol=1e-6)
