"""Autocast and loss scaling: class gradients and norms come out as the optimizer means them, without any scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loops import monitored
from networks import Mlp
from torch import Tensor, nn
from ways import CLASSES, NormalisedCnn, VisionTransformer, assert_exact, assert_same_class_gradients, one_step

from imbdyn import Monitor, Trace, open_trace
from imbdyn.monitor.residuals import THRESHOLD_REDUCED

NETWORKS = {"mlp": lambda: Mlp(features=72), "cnn": NormalisedCnn, "transformer": VisionTransformer}


def make(name: str) -> nn.Module:
    torch.manual_seed(1)  # with seed 0 bfloat16's rounding switches a ReLU, whose class gradients then differ by 3%
    return NETWORKS[name]()


def assert_reduced(trace: Trace) -> None:
    """Everything is covered, and sums to its gradient as far as that is rounded to 8 or 11 bits."""
    assert trace.run["problems"] == {}
    assert trace.run["coverage"]["share"] == 1.0
    assert trace.parameters.residual.notna().all()
    assert trace.parameters.residual.max() <= THRESHOLD_REDUCED


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_autocast(images: Tensor, labels: Tensor, tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    model = make(name)

    def backward(enabled: bool) -> None:
        with torch.autocast("cpu", dtype, enabled=enabled):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()

    full = one_step(model, labels, lambda: backward(False), tmp_path / "float32")
    reduced = one_step(model, labels, lambda: backward(True), tmp_path / "reduced")
    assert_reduced(reduced)
    # 8 bits round a factor by 0.2% to 0.4%; a class's norm is a sum over many of them
    assert_same_class_gradients(reduced, full, rtol=1e-2)


def scaled(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    out: Path,
    *,
    dtype: torch.dtype | None = torch.float16,
    unscale: bool = False,
    infinite: tuple[int, ...] = (),
    steps: int = 4,
) -> Trace:
    """Train with a GradScaler; in the steps named by `infinite` the loss is inf."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    with Monitor(model, optimizer, CLASSES, out, interval=1) as monitor:
        for step in range(steps):
            with monitor.batch(y), torch.autocast("cpu", dtype, enabled=dtype is not None):
                loss = F.cross_entropy(model(x), y)
                scaler.scale(loss * (torch.inf if step in infinite else 1.0)).backward()
            if unscale:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), 1e6)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    return open_trace(out)


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("unscale", [False, True], ids=["scaler unscales", "loop unscales"])
def test_a_grad_scaler_leaves_no_scale_in_the_trace(
    images: Tensor, labels: Tensor, tmp_path: Path, fused: bool, unscale: bool
) -> None:
    """In float32, where a power of two changes no bit of a gradient, so that float32's tolerance holds."""
    model = make("mlp")
    bare = one_step(
        model, labels, lambda: F.cross_entropy(model(images), labels).backward(), tmp_path / "bare", steps=4
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, fused=fused)
    trace = scaled(model, optimizer, images, labels, tmp_path / "run", dtype=None, unscale=unscale)
    assert trace.run["problems"] == {}
    assert trace.parameters.residual.max() <= 1e-5
    np.testing.assert_allclose(trace.steps.grad_scale, 2.0**-10, rtol=1e-5)
    np.testing.assert_allclose(trace.parameters.grad_norm, bare.parameters.grad_norm, rtol=1e-5)
    np.testing.assert_allclose(trace.steps.grad_norm, bare.steps.grad_norm, rtol=1e-5)
    assert_same_class_gradients(trace, bare, rtol=1e-5)


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_autocast_with_a_grad_scaler(
    images: Tensor, labels: Tensor, tmp_path: Path, dtype: torch.dtype, fused: bool
) -> None:
    model = make("transformer")
    full = one_step(model, labels, lambda: F.cross_entropy(model(images), labels).backward(), tmp_path / "full")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0, fused=fused)
    trace = scaled(model, optimizer, images, labels, tmp_path / "run", dtype=dtype, steps=3)
    assert_reduced(trace)
    assert_same_class_gradients(trace, full, rtol=1e-2)


def test_a_step_that_the_scaler_skips_leaves_nothing_behind(images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    model = make("mlp")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trace = scaled(model, optimizer, images, labels, tmp_path / "run", dtype=None, infinite=(0, 2))
    assert trace.steps[["step", "batches", "gradient_batches"]].to_numpy().tolist() == [[1, 1, 1], [2, 1, 1]]
    assert trace.parameters.residual.notna().all()
    assert trace.parameters.residual.max() <= 1e-5
    np.testing.assert_allclose(trace.steps.grad_scale, [2.0**-9, 2.0**-8], rtol=1e-5)


def test_a_step_that_a_fused_optimizer_leaves_out_is_not_read(images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    """There optimizer.step() is called, and counts, but moves nothing."""
    model = make("mlp")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    trace = scaled(model, optimizer, images, labels, tmp_path / "run", dtype=None, infinite=(0, 2))
    assert trace.steps[["since_step", "step"]].to_numpy().tolist() == [[0, 2], [2, 4]]
    assert sorted(trace.parameters.step.unique()) == [2, 4]
    assert trace.parameters.residual.max() <= 1e-5
    assert trace.run["overhead"]["sampled_steps"] == 2
    assert np.isfinite(trace.class_gradients.grad_norm).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_a_model_in_reduced_precision(images: Tensor, labels: Tensor, tmp_path: Path, dtype: torch.dtype) -> None:
    model = make("mlp").to(dtype)
    trace = one_step(
        model, labels, lambda: F.cross_entropy(model(images.to(dtype)).float(), labels).backward(), tmp_path / "run"
    )
    assert_reduced(trace)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_whatever_the_default_type_is(images: Tensor, labels: Tensor, tmp_path: Path, dtype: torch.dtype) -> None:
    """A model in the default type, and one that is not."""
    torch.set_default_dtype(dtype)
    try:
        for out, of_model in (("of default", dtype), ("float32", torch.float32)):
            torch.manual_seed(0)
            model = VisionTransformer().to(of_model)
            trace = monitored(model, [(images.to(of_model), labels)] * 3, tmp_path / out)
            assert_exact(trace, residual=THRESHOLD_REDUCED if of_model is torch.bfloat16 else 1e-5)
    finally:
        torch.set_default_dtype(torch.float32)
