"""Activation checkpointing: what is computed twice is counted once, and recomputed as it was."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from loops import monitored, train
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointFunction, checkpoint
from ways import CLASSES, assert_exact, assert_read, of_cross_entropy, one_step


class Checkpointed(nn.Module):
    """Two checkpointed blocks between a stem, which makes their input require a gradient, and a head."""

    def __init__(self, reentrant: bool | None, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(72, 12)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Dropout(dropout), nn.LayerNorm(16), nn.Linear(16, 12))
            for _ in range(2)
        )
        self.head = nn.Linear(12, CLASSES)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x.flatten(1))
        for block in self.blocks:
            h = h + (block(h) if self.reentrant is None else checkpoint(block, h, use_reentrant=self.reentrant))
        return self.head(h)


WAYS = pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "nonreentrant"])


@WAYS
def test_nothing_is_counted_twice(images: Tensor, labels: Tensor, tmp_path: Path, reentrant: bool) -> None:
    model = Checkpointed(reentrant)
    expected = of_cross_entropy(Checkpointed(None), images, labels)
    trace = one_step(model, labels, lambda: F.cross_entropy(model(images), labels).backward(), tmp_path / "run")
    assert_exact(trace)
    for step in (1, 2, 3):
        assert_read(trace, expected, step=step)


@WAYS
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_weights_and_random_numbers_are_those_of_the_bare_loop(
    images: Tensor, labels: Tensor, tmp_path: Path, reentrant: bool, micro_batches: int
) -> None:
    model, bare = Checkpointed(reentrant, dropout=0.3), Checkpointed(reentrant, dropout=0.3)
    torch.manual_seed(1)
    train(bare, [(images, labels)] * 20, micro_batches=micro_batches)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    trace = monitored(model, [(images, labels)] * 20, tmp_path / "run", micro_batches=micro_batches)
    assert torch.equal(torch.get_rng_state(), state)
    assert_exact(trace)
    for (name, p), q in zip(model.named_parameters(), bare.parameters(), strict=True):
        assert torch.equal(p, q), name


def test_a_reentrant_checkpoint_whose_input_needs_no_gradient_gives_none(
    images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    class Severed(Checkpointed):
        def forward(self, x: Tensor) -> Tensor:
            with pytest.warns(UserWarning, match="None of the inputs have requires_grad"):
                h = checkpoint(self.stem, x.flatten(1), use_reentrant=True)
            return self.head(h)

    model = Severed(True)
    bare = copy.deepcopy(model)
    train(bare, [(images, labels)] * 3)
    trace = monitored(model, [(images, labels)] * 3, tmp_path / "run")
    assert trace.run["coverage"]["parameters"]["stem.weight"]["reason"] == "no gradient comes to it"
    assert set(trace.parameters.parameter) == {"head.weight", "head.bias"}, "the others have no gradient"
    for (name, p), q in zip(model.named_parameters(), bare.parameters(), strict=True):
        assert torch.equal(p, q), name


def test_checkpoints_are_torchs_own_again_after_a_batch(images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    model = Checkpointed(True)
    one_step(model, labels, lambda: F.cross_entropy(model(images), labels).backward(), tmp_path / "run")
    assert "apply" not in vars(CheckpointFunction)
