"""What one watched (micro-)batch collects between its forward pass and the optimizer step."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from imbdyn.taps.calls import Loose
from imbdyn.taps.layout import SINGLE, Layout
from imbdyn.taps.places import Place
from imbdyn.taps.plan import Plan
from imbdyn.taps.registry import NotCovered, function_name
from imbdyn.taps.uses import Site, Use


class WatchedBatch:
    """The labels of a batch and where its uses of parameters go.

    Args:
        labels: int64 [N].
        plan: layouts, and told what cannot be read.
        take: called in the backward pass with each use; what it raises is the instrument's failure.
    """

    def __init__(self, labels: Tensor, plan: Plan, take: Callable[[WatchedBatch, Use], None]) -> None:
        self.labels = labels.clone()  # a loader may fill the same buffer again before the step
        self.size = labels.shape[0]
        self.seconds = 0.0
        """Time spent here, beside the watched functions themselves."""
        self.incomplete: set[str] = set()
        """Parameters that were used in a way that is not known yet: not to be read in this step."""
        self.reduced_precision = False
        """Whether an output gradient came in bfloat16 or float16."""
        self.paused = False
        """Whether gradients are asked for that do not go into p.grad."""
        self.handles: list[RemovableHandle] = []
        self.plan = plan
        self._take = take

    def hand_over(self, site: Site, loose: Loose, grad_output: Tensor, *, borrowed: bool = False) -> None:
        """Take the gradient of a watched function's result (called in the backward pass)."""
        if self.paused:
            return
        started = perf_counter()
        # autocast may be on: many a loop calls backward inside of it
        with torch._C.DisableTorchFunction(), torch._C._DisableAutocast():
            if torch.is_grad_enabled():  # a backward pass that is to be differentiated itself
                with torch.no_grad():
                    self._read(site, loose, grad_output.detach(), borrowed)
            else:
                self._read(site, loose, grad_output, borrowed)
        self.seconds += perf_counter() - started

    def _read(self, site: Site, loose: Loose, grad_output: Tensor, borrowed: bool) -> None:
        names = site.parameters
        layout = self.plan.layouts.get(site.key)
        if self.size > 1:
            known, layout = layout, layout and layout.refit(tuple(grad_output.shape), self.size)
            if layout is None:
                self.incomplete.update(names)
                self._unknown(site.key, names, known)
                return
        self.reduced_precision |= grad_output.element_size() < 4
        only = all(self.plan.uses[name] == 1 for name in names)
        try:
            self._take(self, Use(site, layout or SINGLE, self.size, loose, grad_output, borrowed, only))
        except NotCovered as reason:
            self.plan.refuse(names, f"{function_name(site.call[1])} with {reason}")
        except Exception as error:  # a rule may be a user's, and must not break the backward pass
            self.plan.refuse(
                names, f"the rule of {function_name(site.call[1])} failed: {type(error).__name__}: {error}"
            )

    def _unknown(self, key: str, names: tuple[str, ...], known: Layout | None) -> None:
        """Decide what is to be done about a result whose rows are not known, now that its gradient has come."""
        plan = self.plan
        if known is not None:  # they lie in another way now
            plan.complete = False
            plan.is_value.pop(key, None)
        elif key not in plan.unassigned:  # it is being learned
            plan.unread.add(key)
        elif plan.patient:
            plan.complete = False
            plan.is_value.pop(key, None)
            plan.unassigned.pop(key)
        else:
            plan.refuse(names, plan.unassigned[key])

    def release(self) -> None:
        """Let go of what the backward pass needed, which a loss that somebody keeps would hold on to."""
        for handle in self.handles:
            handle.remove()
        self.handles.clear()
        self.paused = True


class _Tap:
    """The hook on a result."""

    __slots__ = ("_batch", "_cut", "_loose", "_site")

    def __init__(self, batch: WatchedBatch, site: Site, loose: Loose, cut: Callable[[Tensor], Tensor]) -> None:
        self._batch = batch
        self._site = site
        self._loose: Loose | None = loose
        self._cut = cut

    def __call__(self, grad_output: Tensor) -> None:
        batch, plan = self._batch, self._batch.plan
        if batch.paused:
            return
        if self._loose is None:  # a second backward pass: next time everything is kept for it
            plan.backward_again = True
            batch.incomplete.update(name for _, name in self._site.names)
            return
        batch.hand_over(self._site, self._loose, self._cut(grad_output))
        if plan.complete and not plan.backward_again:
            self._loose = None  # as autograd lets go of its own


def tap(batch: WatchedBatch, site: Site, loose: Loose, place: Place) -> RemovableHandle:
    """Hand the gradient that is seen at `place` over to `batch` in the backward pass."""
    handle: RemovableHandle = place.tensor.register_hook(_Tap(batch, site, loose, place.cut))
    return handle
