"""How a watched batch runs: learned first, then under the mode that taps it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from imbdyn.monitor.checkpoints import readable_checkpoints
from imbdyn.monitor.model import WatchedModel
from imbdyn.monitor.step import OptimizerStep
from imbdyn.taps import Lesson, Plan, Watch, WatchedBatch


class Watching:
    """Owns the watch on a model and what was learned of it."""

    def __init__(self, model: WatchedModel) -> None:
        self.plan = Plan()
        self._model = model
        self._watch = Watch(self.plan)
        self._lesson: Lesson | None = None

    def begin(self, step: OptimizerStep, labels: Tensor, modes: ExitStack) -> WatchedBatch:
        """Watch a batch of `step`: what has to be entered while it runs is entered into `modes`.

        What is not known of the model yet is learned in this batch. A compiled model then runs eagerly, since its graph
        does not show what is inside.
        """
        batch = step.gradients.watch(labels)
        if not self.plan.complete:
            self._lesson = Lesson(self.plan, self._model.inner, batch.size)
            modes.enter_context(torch.compiler.set_stance("force_eager"))
        modes.enter_context(readable_checkpoints(learning=self._lesson is not None))
        self._watch.begin(self._model.names(), batch, self._lesson)
        modes.enter_context(self._watch)
        return batch

    def after_forward(self, output: Any, batch: WatchedBatch) -> None:
        """Learn from a model output, where there is something to learn."""
        if self._lesson is not None:
            batch.paused = True  # the experiment's gradients are nobody's
            try:
                self._lesson.resolve(output)
                self._watch.forget_values(self._lesson.ended)
            finally:
                batch.paused = False

    def end(self) -> None:
        """End what a batch began; its gradients may still come."""
        if self._lesson is not None:
            self._lesson.end()
            self._lesson = None
        self._watch.end()
