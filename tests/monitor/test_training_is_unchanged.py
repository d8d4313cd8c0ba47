"""Monitoring never changes training."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from loops import monitored, train
from torch import Tensor, nn

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
