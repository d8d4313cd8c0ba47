"""The training loop of a run: what changes from epoch to epoch, and what is watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from imbdyn.experiments.augment import crop_and_flip
from imbdyn.experiments.config import ExperimentConfig, TrainConfig
from imbdyn.experiments.data.split import Split
from imbdyn.experiments.errors import ConfigError
from imbdyn.experiments.schedules import lr_factor
from imbdyn.monitor import Monitor

_EVALUATION_BATCH = 256


class Loop:
    """A network and its optimizer, and where they are in training.

    Args:
        config: the experiment.
        model: on its device.
        split: the training samples, on the model's device.
        kept: int64 indices of those that are used.
        counts: how many they are of each class, int64 [C].
    """

    def __init__(self, config: ExperimentConfig, model: nn.Module, split: Split, kept: Tensor, counts: Tensor) -> None:
        self._method, self._train = config.method, config.train
        self._model = model
        self._device = next(model.parameters()).device
        self._split, self._kept, self._counts = split, kept, counts.to(self._device)
        self._generator = torch.Generator().manual_seed(config.seed)
        self._change: Callable[[Tensor], Tensor] | None = None
        if config.train.augment:
            shape = tuple(split.take(kept[:1]).shape[1:])
            if len(shape) != 3:
                raise ConfigError(f"train.augment is for images, and inputs are {list(shape)}")
            self._change = partial(crop_and_flip, generator=self._generator)
        self.optimizer = _optimizer(model, config.train)

    def epoch(self, epoch: int, monitor: Monitor) -> None:
        """Train for one epoch, counted from 1."""
        options = self._train
        factor = lr_factor(
            options.schedule,
            epoch,
            options.epochs,
            warmup=options.warmup,
            milestones=options.milestones,
            decay=options.decay,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = options.lr * factor
        monitor.epoch = epoch
        self._model.train()
        labels = self._split.labels[self._kept]
        samples = self._kept[self._method.order(labels, self._generator)]
        for x, y in self._batches(self._split, samples, options.batch_size, self._change):
            with monitor.batch(y):
                loss = self._method.loss(self._model(x), y, self._counts, epoch)
                loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()

    @torch.no_grad()
    def evaluate(self, monitor: Monitor, name: str, split: Split, samples: Tensor) -> None:
        """Run the network in eval mode on some samples of a split."""
        self._model.eval()
        with monitor.evaluate(name):
            for x, y in self._batches(split, samples, _EVALUATION_BATCH):
                with monitor.batch(y):
                    self._model(x)

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next epoch depends on."""
        on_gpu = self._device.type == "cuda"
        return {
            "model": self._model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "random": torch.random.get_rng_state(),
            "gpu_random": torch.cuda.get_rng_state(self._device) if on_gpu else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was called."""
        self._model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])
        torch.random.set_rng_state(state["random"])
        if state["gpu_random"] is not None:
            torch.cuda.set_rng_state(state["gpu_random"], self._device)

    def _batches(
        self, split: Split, samples: Tensor, size: int, change: Callable[[Tensor], Tensor] | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for chosen in samples.split(size):
            yield split.take(chosen, change).to(self._device), split.labels[chosen].to(self._device)


def _optimizer(model: nn.Module, options: TrainConfig) -> torch.optim.Optimizer:
    if options.optimizer == "adamw":
        betas = (options.momentum, 0.999)
        return torch.optim.AdamW(model.parameters(), lr=options.lr, betas=betas, weight_decay=options.weight_decay)
    return torch.optim.SGD(
        model.parameters(), lr=options.lr, momentum=options.momentum, weight_decay=options.weight_decay
    )
