"""Gradient accumulation and clipping: micro-batches of one step are one problem, cross terms and all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from networks import Mlp
from torch import Tensor, nn
from ways import CLASSES, NormalisedCnn, assert_exact, assert_read, of_cross_entropy

from imbdyn import Monitor, Trace, open_trace


def accumulate(model: nn.Module, parts: list[list[slice]], x: Tensor, y: Tensor, out: Path, clip: float = 0.0) -> Trace:
    """One step for each list of parts, each part a micro-batch; the loss is the mean over the step's samples."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with Monitor(model, optimizer, CLASSES, out, interval=1) as monitor:
        for of_step in parts:
            samples = sum(len(y[part]) for part in of_step)
            for part in of_step:
                with monitor.batch(y[part]):
                    (F.cross_entropy(model(x[part]), y[part], reduction="sum") / samples).backward()
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
    return open_trace(out)


WHOLE, HALVES, THIRDS = [slice(0, 24)], [slice(0, 17), slice(17, 24)], [slice(0, 4), slice(4, 15), slice(15, 24)]


@pytest.mark.parametrize("parts", [HALVES, THIRDS], ids=["2", "3"])
def test_micro_batches_of_unequal_size(
    network: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path, parts: list[slice]
) -> None:
    expected = of_cross_entropy(network, images, labels)
    trace = accumulate(network, [parts] * 3, images, labels, tmp_path / "run")
    assert_exact(trace)
    assert trace.steps.gradient_batches.tolist() == [len(parts)] * 3
    for step in (1, 3):
        assert_read(trace, expected, step=step)


def test_micro_batches_with_batch_normalisation(images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    assert_exact(accumulate(NormalisedCnn(), [THIRDS] * 3, images, labels, tmp_path / "run"))


def test_a_single_sample_is_a_micro_batch(images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    model = Mlp(features=72)
    parts = [slice(0, 1), slice(1, 24)]
    trace = accumulate(model, [parts] * 3, images, labels, tmp_path / "run")
    assert_exact(trace)
    assert_read(trace, of_cross_entropy(model, images, labels), step=3)


def test_the_number_of_micro_batches_changes_during_the_run(images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    model = Mlp(features=72)
    expected = of_cross_entropy(model, images, labels)
    trace = accumulate(model, [WHOLE, WHOLE, HALVES, HALVES, THIRDS, WHOLE, WHOLE], images, labels, tmp_path / "run")
    steps = trace.steps.set_index("step")
    assert steps.batches.tolist() == [1, 1, 2, 2, 3, 1, 1]
    # A step that follows one of a single batch is read as it runs; a second batch, unforeseen, is then not read.
    assert steps.gradient_batches.tolist() == [1, 1, 1, 2, 3, 1, 1]
    assert steps.grad_scale.isna().tolist() == [False, False, True, False, False, False, False]
    assert trace.run["problems"] == {}
    assert trace.run["coverage"]["share"] == 1.0
    assert trace.parameters.residual.max() <= 1e-5
    for step in (1, 2, 4, 5, 6, 7):
        assert trace.parameters[trace.parameters.step == step].residual.notna().all()
        assert_read(trace, expected, step=step)


def test_clipping_scales_the_class_gradients(images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    model = Mlp(features=72)
    gradients = of_cross_entropy(model, images, labels)
    norm = float(torch.cat([g.sum(0).flatten() for g in gradients.values()]).norm())
    clip = 0.1 * norm
    trace = accumulate(model, [HALVES] * 2, images, labels, tmp_path / "run", clip)
    assert_exact(trace)
    assert trace.steps.grad_scale[1] == pytest.approx(0.1, rel=1e-4)
    assert_read(trace, {name: 0.1 * g for name, g in gradients.items()}, step=2, tolerance=2e-5)


def test_backward_passes_in_another_order_than_the_batches(images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    """And after the batches were left: a gradient belongs to the batch of its forward pass."""
    model = Mlp(features=72)
    expected = of_cross_entropy(model, images, labels)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=1) as monitor:
        for _ in range(3):
            losses = []
            for part in (slice(0, 12), slice(12, 24)):
                with monitor.batch(labels[part]):
                    losses.append(F.cross_entropy(model(images[part]), labels[part], reduction="sum") / 24)
            for loss in reversed(losses):
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    trace = open_trace(tmp_path / "run")
    assert_exact(trace)
    for step in (1, 3):
        assert_read(trace, expected, step=step)


def test_samples_that_are_not_told_apart_are_null_and_said_so(images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    trace = accumulate(NormalisedCnn(), [HALVES], images, labels, tmp_path / "run")
    rows = trace.table("class_gradients", ["parameter", "sample_norm_sq", "grad_norm"])
    frame = rows.to_pandas().groupby("parameter").sample_norm_sq.apply(lambda values: values.notna().all())
    assert not frame["first.weight"], "a convolution in two batches"
    assert frame["head.weight"]
    assert rows["sample_norm_sq"].null_count == rows["sample_norm_sq"].to_pandas().isna().sum(), "null, not NaN"
    told = trace.findings().set_index("name").sentence["noise_scale"]
    assert "no sampled step tells its samples' gradients apart" in told
