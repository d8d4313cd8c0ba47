"""One run: a network trained from a seed, with a Monitor around its loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from imbdyn.experiments.checkpoint import Checkpoint
from imbdyn.experiments.config import ExperimentConfig
from imbdyn.experiments.data import SplitData
from imbdyn.experiments.errors import ConfigError
from imbdyn.experiments.loop import Loop
from imbdyn.experiments.profiles import select
from imbdyn.monitor import Monitor


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
    run: Run, data: SplitData, out: str | Path, *, force: bool, resume: bool = False, on_epoch: Callable[[], None]
) -> nn.Module:
    """Train `run`, write its trace to `out` and return the network; `on_epoch` is called after each epoch.

    With `resume` it goes on after the last epoch that is in the checkpoint beside `out`, if it is one of this run.

    Epochs count from 1, so that what is evaluated at epoch e has seen the data e times. The seed decides the weights,
    the samples and their order, and the caller's random state is left alone: equal runs give equal weights (on the CPU,
    and as far as a user's own dataset draws from torch's generator only).

    A KeyboardInterrupt or an error passes through the Monitor, which closes the trace first.

    Raises: ConfigError if model, method or device cannot be had for these data.
    """
    config, device = run.config, _device(run.config.train.device)
    kept = select(data.train.labels, run.class_counts, config.seed)
    checkpoint = Checkpoint(out, run.as_dict())
    saved = checkpoint.load() if resume else None
    with _one_thread(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        counts = torch.tensor(run.class_counts)
        model = config.model.build(data.shape, data.num_classes)
        config.method.prepare(model, counts)
        model.to(device)
        train_split, test_split = data.train.to(device), data.test.to(device)
        loop = Loop(config, model, train_split, kept, counts)

        def evaluate() -> None:
            loop.evaluate(monitor, "train_eval", train_split, kept)
            loop.evaluate(monitor, "test", test_split, torch.arange(len(test_split)))

        with Monitor(
            model,
            loop.optimizer,
            num_classes=data.num_classes,
            out=out,
            interval=config.monitor.interval,
            class_names=list(data.class_names),
            force=force or (resume and saved is None),
            resume=saved is not None,
            config=run.as_dict(),
        ) as monitor:
            if saved is not None:
                loop.load_state_dict(saved["loop"])
                monitor.load_state_dict(saved["monitor"])
            else:  # what the untrained network guesses, before any epoch
                evaluate()
            for epoch in range(1 if saved is None else saved["epoch"] + 1, config.train.epochs + 1):
                loop.epoch(epoch, monitor)
                # The training data once more: "train" windows mix the weights of a whole epoch, and the gap between
                # training and test is one between equal weights.
                evaluate()
                checkpoint.save(epoch=epoch, loop=loop.state_dict(), monitor=monitor.state_dict())
                on_epoch()
    checkpoint.remove()
    return model


def epochs_done(run: Run, out: str | Path) -> int:
    """Return after how many epochs `train` would go on with `run`; 0 if it would start."""
    saved = Checkpoint(out, run.as_dict()).load()
    return 0 if saved is None else int(saved["epoch"])


def _device(name: str) -> torch.device:
    """Return the device of that name. Raises: ConfigError if this machine has none."""
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch without CUDA fails an assertion
        raise ConfigError(f"train.device {name!r} cannot be used here: {str(error).splitlines()[0]}") from error


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
