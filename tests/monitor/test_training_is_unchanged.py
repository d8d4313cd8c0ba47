"""Monitoring never changes training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from loops import monitored, train
from torch import Tensor, nn
from ways import CLASSES, NormalisedCnn

import imbdyn


def random_batches(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [
        (torch.randn(16, 2, 6, 6, generator=generator), torch.randint(0, 5, (16,), generator=generator))
        for _ in range(count)
    ]


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam], ids=["sgd", "adam"])
def test_weights_after_50_steps_are_bit_identical(network: nn.Module, tmp_path: Path, make: type) -> None:
    bare = copy.deepcopy(network)
    batches = random_batches(50)
    train(bare, batches, optimizer=make(bare.parameters(), lr=0.05))
    trace = monitored(network, batches, tmp_path / "run", optimizer=make(network.parameters(), lr=0.05))
    assert trace.steps.sampled.sum() == 50
    for (name, p), q in zip(network.named_parameters(), bare.parameters(), strict=True):
        assert torch.equal(p, q), name


class Dropped(nn.Module):
    """Dropout, BatchNorm's statistics and a class token: what a step moves beside the weights, and what it draws."""

    def __init__(self) -> None:
        super().__init__()
        self.body = NormalisedCnn()
        self.body.head = nn.Linear(8, 16)
        self.drop = nn.Dropout(0.4)
        self.token = nn.Parameter(torch.zeros(1, 16))
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(F.gelu(self.body(x) + self.token.expand(len(x), -1))))


def plain(model: nn.Module, x: Tensor, y: Tensor) -> None:
    F.cross_entropy(model(x), y).backward()


def under_autocast(dtype: torch.dtype) -> Callable[[nn.Module, Tensor, Tensor], None]:
    def backward(model: nn.Module, x: Tensor, y: Tensor) -> None:
        with torch.autocast("cpu", dtype):
            loss = F.cross_entropy(model(x), y)
        loss.backward()

    return backward


def twice(model: nn.Module, x: Tensor, y: Tensor) -> None:
    z = model(x)
    F.cross_entropy(z, y).backward(retain_graph=True)
    (0.1 * z.square().mean()).backward()


def two_forward_passes(model: nn.Module, x: Tensor, y: Tensor) -> None:
    (F.cross_entropy(model(x), y) + F.cross_entropy(model(x.flip(3)), y)).backward()


def smoothed(model: nn.Module, x: Tensor, y: Tensor) -> None:
    F.cross_entropy(model(x), y, label_smoothing=0.1).backward()


WAYS = {
    "plain": plain,
    "bf16": under_autocast(torch.bfloat16),
    "fp16": under_autocast(torch.float16),
    "two backward passes": twice,
    "two forward passes": two_forward_passes,
    "label smoothing": smoothed,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sampled", ["interval", "budget"])
@pytest.mark.parametrize("soft", [False, True], ids=["labels", "soft labels"])
def test_weights_statistics_and_random_numbers_are_those_of_the_bare_loop(
    tmp_path: Path, way: str, sampled: str, soft: bool
) -> None:
    """Twenty steps of one or two micro-batches with clipping, an evaluation, and a layer frozen for a while."""
    backward = WAYS[way]

    def run(model: nn.Module, monitor: imbdyn.Monitor | None, optimizer: torch.optim.Optimizer) -> None:
        torch.manual_seed(4)
        for number, (x, y) in enumerate(random_batches(20)):
            if number in (8, 12):
                model.body.second.requires_grad_(number == 12)
            for part in [slice(0, 16)] if number < 10 else [slice(0, 5), slice(5, 16)]:
                labels = F.one_hot(y[part], CLASSES).float().roll(1, 1) * 0.3 + 0.2 if soft else y[part]
                with nullcontext() if monitor is None else monitor.batch(labels):
                    backward(model, x[part], y[part])
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
            if number % 5 == 0:
                model.eval()
                with ExitStack() as stack:
                    stack.enter_context(torch.no_grad())
                    if monitor is not None:
                        stack.enter_context(monitor.evaluate("test"))
                        stack.enter_context(monitor.batch(y))
                    model(x)
                model.train()

    torch.manual_seed(0)
    bare = Dropped()
    model = copy.deepcopy(bare)
    run(bare, None, torch.optim.AdamW(bare.parameters(), lr=0.01))
    state = torch.get_rng_state()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    options = {"interval": 1} if sampled == "interval" else {"budget": 0.01}
    with imbdyn.Monitor(model, optimizer, CLASSES, tmp_path / "run", **options) as monitor:
        run(model, monitor, optimizer)
    assert torch.equal(torch.get_rng_state(), state)
    trace = imbdyn.open_trace(tmp_path / "run")
    assert trace.run["problems"] == {}
    assert trace.steps.sampled.sum() == 20 if sampled == "interval" else trace.steps.sampled.sum() >= 5
    for (name, value), expected in zip(model.state_dict().items(), bare.state_dict().values(), strict=True):
        assert torch.equal(value, expected), name


def test_no_random_number_is_drawn(network: nn.Module, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    monitored(network, random_batches(3), tmp_path / "run")
    assert torch.equal(state, torch.get_rng_state())


def test_a_monitored_model_can_be_saved_and_copied(network: nn.Module, images: Tensor, tmp_path: Path) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with imbdyn.Monitor(network, optimizer, 5, tmp_path / "run") as monitor, torch.no_grad():
        torch.save(network, tmp_path / "model.pt")
        loaded = torch.load(tmp_path / "model.pt", weights_only=False)
        labels = torch.zeros(len(images), dtype=torch.int64)
        with monitor.evaluate("test"), monitor.batch(labels):
            for other in (loaded, copy.deepcopy(network)):
                other(2 * images)  # a copy is not monitored
            expected = network(images)
        assert torch.equal(loaded(images), expected)
    mean = torch.nn.functional.cross_entropy(expected, labels)
    assert imbdyn.open_trace(tmp_path / "run").steps.loss[0] == pytest.approx(float(mean), rel=1e-5)


def test_no_hook_and_no_mode_is_left_behind(network: nn.Module, tmp_path: Path) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    monitored(network, random_batches(3), tmp_path / "run", optimizer=optimizer)
    assert not network._forward_hooks
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert torch.overrides._get_current_function_mode() is None
