"""One run: a network trained from a seed, with a Monitor around its loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from imbdyn.experiments.checkpoint import Checkpoint
from imbdyn.experiments.config import ExperimentConfig
from imbdyn.experiments.data import ImageData
from imbdyn.experiments.models import SmallConvNet
from imbdyn.experiments.profiles import select
from imbdyn.monitor import Monitor

_EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Run:
    """One of an experiment's runs: which samples of each class it trains on."""

    name: str
    config: ExperimentConfig
    class_counts: list[int]
    """Training samples of each class, C numbers."""
    rare_classes: list[int]
    """The classes that are rare in the imbalanced run; where counts are equal, the group it is compared with."""

    def as_dict(self) -> dict[str, Any]:
        """Return what the trace keeps as the run's configuration."""
        return {
            "experiment": self.config.as_dict(),
            "run": self.name,
            "class_counts": self.class_counts,
            "rare_classes": self.rare_classes,
        }


def train(
    run: Run, data: ImageData, out: str | Path, *, force: bool, resume: bool = False, on_epoch: Callable[[], None]
) -> None:
    """Train `run` and write its trace to `out`; `on_epoch` is called after each epoch.

    With `resume` it goes on after the last epoch that is in the checkpoint beside `out`, if it is one of this run.

    Epochs count from 1, so that what is evaluated at epoch e has seen the data e times. The seed decides the weights,
    the samples and their order, and the caller's random state is left alone: equal runs give equal weights.

    A KeyboardInterrupt or an error passes through the Monitor, which closes the trace first.
    """
    config = run.config
    kept = select(data.train_labels, run.class_counts, config.seed)
    images, labels = data.train_images[kept], data.train_labels[kept]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = SmallConvNet(data.num_classes, config.model.channels, config.model.hidden)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=config.train.lr,
        momentum=config.train.momentum,
        weight_decay=config.train.weight_decay,
    )
    order = torch.Generator().manual_seed(config.seed)
    checkpoint = Checkpoint(out, run.as_dict())
    saved = checkpoint.load() if resume else None

    with (
        _one_thread(),
        Monitor(
            model,
            optimizer,
            num_classes=data.num_classes,
            out=out,
            interval=config.monitor.interval,
            class_names=list(data.class_names),
            force=force or (resume and saved is None),
            resume=saved is not None,
            config=run.as_dict(),
        ) as monitor,
    ):
        if saved is not None:
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            order.set_state(saved["order"])
            monitor.load_state_dict(saved["monitor"])
        else:  # what the untrained network guesses, before any epoch
            _evaluate(monitor, model, "train_eval", images, labels)
            _evaluate(monitor, model, "test", data.test_images, data.test_labels)
        for epoch in range(1 if saved is None else saved["epoch"] + 1, config.train.epochs + 1):
            monitor.epoch = epoch
            model.train()
            shuffled = torch.randperm(len(labels), generator=order)
            for x, y in _batches(images[shuffled], labels[shuffled], config.train.batch_size):
                with monitor.batch(y):
                    loss = F.cross_entropy(model(x), y)
                    loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            # The training data once more: "train" windows mix the weights of a whole epoch, and the gap between
            # training and test is one between equal weights.
            _evaluate(monitor, model, "train_eval", images, labels)
            _evaluate(monitor, model, "test", data.test_images, data.test_labels)
            checkpoint.save(
                epoch=epoch,
                model=model.state_dict(),
                optimizer=optimizer.state_dict(),
                order=order.get_state(),
                monitor=monitor.state_dict(),
            )
            on_epoch()
    checkpoint.remove()


def epochs_done(run: Run, out: str | Path) -> int:
    """Return after how many epochs `train` would go on with `run`; 0 if it would start."""
    saved = Checkpoint(out, run.as_dict()).load()
    return 0 if saved is None else int(saved["epoch"])


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one core.

    The network is too small to gain from a second one, on a busy machine two threads wait for each other most of the
    time (four times as long here), and sums have one order on every machine.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def _evaluate(monitor: Monitor, model: SmallConvNet, split: str, images: Tensor, labels: Tensor) -> None:
    model.eval()
    with monitor.evaluate(split):
        for x, y in _batches(images, labels, _EVALUATION_BATCH):
            with monitor.batch(y):
                model(x)


def _batches(images: Tensor, labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(images.split(size), labels.split(size), strict=True)
