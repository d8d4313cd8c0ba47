"""How a watched batch runs: learned first, then under the mode that taps it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

from imbdyn.monitor.checkpoints import readable_checkpoints
from imbdyn.monitor.model import WatchedModel
from imbdyn.monitor.outputs import is_compiled_in_place, is_optimized
from imbdyn.monitor.problems import Problems
from imbdyn.monitor.step import OptimizerStep
from imbdyn.taps import Lesson, Plan, Watch, WatchedBatch


class Watching:
    """Owns the watch on a model and what was learned of it."""

    def __init__(self, model: WatchedModel, problems: Problems) -> None:
        self.plan = Plan()
        self._model = model
        self._problems = problems
        self._watch = Watch(self.plan)
        self._lesson: Lesson | None = None
        self._names: dict[int, str] = {}
        self._eagerly = False
        """Whether watched batches run without the graphs of torch.compile, now that the model is known."""
        self._is_compiled = is_optimized(model.module) or is_compiled_in_place(model.module)
        self._in_graph = False

    def begin(self, step: OptimizerStep, labels: Tensor, modes: ExitStack) -> WatchedBatch:
        """Watch a batch of `step`: what has to be entered while it runs is entered into `modes`.

        What is not known of the model yet is learned in this batch. A compiled model then runs eagerly, since its graph
        does not show what is inside.
        """
        names = self._model.names()
        if not names.keys() <= self._names.keys():  # a layer was unfrozen: a compiled graph would pass over it
            self.plan.complete = False
        self._names = names
        batch = step.gradients.watch(labels)
        if not self.plan.complete:
            self._lesson = Lesson(self.plan, self._model.inner, batch.size)
            self._eagerly |= self._parts_are_compiled()
        self._in_graph = self._is_compiled and self._lesson is None and not self._eagerly
        if not self._in_graph:
            modes.enter_context(torch.compiler.set_stance("force_eager"))
        modes.enter_context(readable_checkpoints(learning=self._lesson is not None))
        self._watch.begin(names, batch, self._lesson)
        modes.enter_context(self._watch)
        return batch

    def run_compiled(
        self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], batch: WatchedBatch
    ) -> Any:
        """Run the compiled forward pass of a watched batch; where the watched graph cannot be made, run it eagerly."""
        try:
            return call(*args, **kwargs)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            if not self._in_graph:
                raise
            self._problems.warn(
                "compile",
                "torch.compile cannot make the graph of a watched step, so that sampled steps run without it: "
                f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}",
            )
        self._eagerly, self._in_graph = True, False
        self._watch.begin(self._names, batch, None)
        with torch.compiler.set_stance("force_eager"):
            return call(*args, **kwargs)

    def after_forward(self, output: Any, batch: WatchedBatch) -> None:
        """Learn from a model output, where there is something to learn."""
        if self._lesson is not None:
            batch.paused = True  # the experiment's gradients are nobody's
            try:
                self._lesson.resolve(output)
                self._watch.forget_values(self._lesson.ended)
            finally:
                batch.paused = False

    @property
    def in_graph(self) -> bool:
        """Whether the last watched batch ran in a compiled graph."""
        return self._in_graph

    def missed(self, in_graph: bool, names: list[str]) -> None:
        """Draw the conclusion from parameters that have a gradient of which nothing was seen."""
        if not names:
            return
        if in_graph:
            self._eagerly = True
            self._problems.warn(
                "compile",
                f"torch.compile hides how {names[0]} is used (a parametrization such as weight_norm, say), so that "
                "sampled steps run without it from now on",
            )
        else:
            self.plan.refuse(
                tuple(names),
                "its rows did not come in the backward pass: no watched function shows them, or torch.autograd.grad "
                "made its gradient",
            )

    def end(self) -> None:
        """End what a batch began; its gradients may still come."""
        if self._lesson is not None:
            self._lesson.end()
            self._lesson = None
        self._watch.end()

    def _parts_are_compiled(self) -> bool:
        """Whether modules inside the model were compiled by themselves.

        torch.compile shares the graph of blocks that are alike; watched, each would need its own, past its limit.
        """
        return any(
            is_optimized(module) or is_compiled_in_place(module)
            for module in self._model.inner.modules()
            if module is not self._model.inner
        )
