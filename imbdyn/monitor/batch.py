"""The context of one batch: which modes are on while the model runs."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Protocol

from torch import Tensor

from imbdyn.monitor.step import OptimizerStep
from imbdyn.taps import FeatureWatch, Watch


class Batch:
    """`with monitor.batch(labels):`; on sampled steps it enters `watch`, where features are read `features`."""

    def __init__(
        self,
        owner: BatchOwner,
        labels: Tensor,
        *,
        wants_logits: bool,
        step: OptimizerStep | None = None,
        watch: Watch | None = None,
        features: FeatureWatch | None = None,
    ) -> None:
        self.labels = labels
        self.wants_logits = wants_logits
        """Whether the logits are still to be read; a second forward pass in one batch is not."""
        self.logits: Tensor | None = None
        """[N, C], from the forward pass until they are counted."""
        self.step = step
        """The optimizer step that the batch belongs to; None in an evaluation."""
        self.watch = watch
        self.watch_taken = False
        """Whether the step has taken over `watch`."""
        self.features = features
        self._owner = owner
        self._modes = ExitStack() if watch is not None or features is not None else None

    def __enter__(self) -> None:
        self._owner.enter_batch(self)
        if self._modes is not None:
            for mode in (self.features, self.watch):
                if mode is not None:
                    self._modes.enter_context(mode)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._modes is not None:
            self._modes.close()
        self._owner.leave_batch(self, completed=error is None)


class BatchOwner(Protocol):
    """Who is told when a batch begins and ends."""

    def enter_batch(self, batch: Batch) -> None:
        """Read what comes as part of `batch`."""

    def leave_batch(self, batch: Batch, *, completed: bool) -> None:
        """Take over what the batch collected; `completed` is false if it was left by an exception."""
