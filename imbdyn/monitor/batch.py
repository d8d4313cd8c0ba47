"""The context of one batch: which modes are on while the model runs."""

from __future__ import annotations

from contextlib import ExitStack
from threading import get_ident
from types import TracebackType
from typing import Protocol

import torch
from torch import Tensor

from imbdyn.monitor.labels import beside_model, heaviest, shares
from imbdyn.monitor.step import OptimizerStep
from imbdyn.taps import FeatureWatch, WatchedBatch


class Batch:
    """`with monitor.batch(labels):`; its owner enters what it needs into `modes`.

    Args:
        owner: told when it begins and ends.
        labels: int64 [N], or soft, [N, C].
        device: where the model is.
        wants_logits: whether the logits are to be read.
        step: the optimizer step that the batch belongs to; None in an evaluation.
        watched: whether class gradients are to be read.
        features: mode that reads features, where they are read.
    """

    def __init__(
        self,
        owner: BatchOwner,
        labels: Tensor,
        device: torch.device,
        *,
        wants_logits: bool,
        step: OptimizerStep | None = None,
        watched: bool = False,
        features: FeatureWatch | None = None,
    ) -> None:
        self.given = heaviest(labels)
        """int64 [N], where the loader has them."""
        self.labels = beside_model(self.given, device) if wants_logits else self.given
        """The same where the model is, if they are read there."""
        self.shares = beside_model(shares(labels), device) if watched else None
        """int64 [N], or soft, [N, C]: whose class gradients are read, where they are."""
        self.wants_logits = wants_logits
        """Whether the logits are still to be read; a second forward pass in one batch is not."""
        self.logits: Tensor | None = None
        """[N, C], from the forward pass until they are counted."""
        self.step = step
        """The optimizer step that the batch belongs to; None in an evaluation."""
        self.watched: WatchedBatch | None = None
        """What is read of them, once the batch is entered."""
        self.features = features
        self.thread = get_ident()
        """In which the model runs for it; what it does in others (serving, say) is not of the batch."""
        self._owner = owner
        self.modes = ExitStack() if watched or features is not None else None

    def __enter__(self) -> None:
        if self.modes is not None and self.features is not None:
            self.modes.enter_context(self.features)
        self._owner.enter_batch(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.modes is not None:
            self.modes.close()
        self._owner.leave_batch(self, completed=error is None)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def refuse_compiled() -> None:
    """Raise RuntimeError, at the time when the compiled function runs: its compiler may be in it now."""
    raise RuntimeError(
        "monitor.batch(...) inside of a function that torch.compile compiles: put it around the call of that function"
    )


class BatchOwner(Protocol):
    """Who is told when a batch begins and ends."""

    def enter_batch(self, batch: Batch) -> None:
        """Read what comes as part of `batch`."""

    def leave_batch(self, batch: Batch, *, completed: bool) -> None:
        """Take over what the batch collected; `completed` is false if it was left by an exception."""
