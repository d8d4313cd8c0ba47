"""What is known between two optimizer steps, and what is read when the step comes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imbdyn.monitor.gradients import ClassGrams, StepGradients
from imbdyn.monitor.model import WatchedModel
from imbdyn.monitor.weights_before import WeightsBefore
from imbdyn.ops import parameter_norms
from imbdyn.statistics.class_gradients import grad_scale, residual
from imbdyn.taps import Plan

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GradientReading:
    """The gradients of one step as the optimizer sees them, read just before it moves the weights."""

    parameters: dict[str, Tensor]
    """The P parameters that have a gradient."""
    previous: list[Tensor]
    """Copies of them, to measure the update by; valid until the next reading."""
    grad_norm: Floats
    """[P], ||p.grad||."""
    grams: ClassGrams | None
    """Class gradients of the covered ones among them, times `grad_scale`; None if there are none."""
    grad_scale: float | None
    """None if not all micro-batches were read."""
    residual: dict[str, float]
    """By covered parameter; empty without a scale."""
    reduced_precision: bool


class OptimizerStep:
    """Everything that one optimizer step accumulates, from its first micro-batch on."""

    def __init__(self, gradients: StepGradients, *, sampled: bool, read_logits: bool) -> None:
        self.sampled = sampled
        self.read_logits = read_logits
        self.batches = 0
        self.gradients = gradients
        self.tried = False
        """Whether reading the gradients was begun."""
        self.missing: list[str] = []
        """Parameters that have a gradient and are known, and of which nothing was seen all the same."""
        self.reading: GradientReading | None = None

    def read_gradients(
        self, model: WatchedModel, optimizer: torch.optim.Optimizer, plan: Plan, before: WeightsBefore
    ) -> None:
        """Fill `reading`: called when the gradients are complete and the weights have not moved.

        Nothing is read of a step that a fused optimizer will leave out, since a GradScaler has found an inf. Of the
        others, only the parameters that `optimizer` is about to move: another optimizer's have steps of their own.
        """
        if _is_skipped(optimizer):
            return
        moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
        parameters = {n: p for n, p in model.trainable().items() if p.grad is not None and id(p) in moved}
        grads = [_dense(p.grad) for p in parameters.values()]
        tensors = [p.detach() for p in parameters.values()]
        # a fused optimizer takes a GradScaler's scale out of the gradients itself
        unscale = 1 / float(getattr(optimizer, "grad_scale", None) or 1.0)
        nothing = [None] * len(grads)
        grad_norm = parameter_norms(grads, nothing, nothing).tensors[:, 0].cpu().numpy() * unscale
        if self.gradients.batches == self.batches > 0:
            for name, norm in zip(parameters, grad_norm, strict=True):
                if name in plan.rule_of and norm > 0 and self.gradients.is_missing(name):
                    self.missing.append(name)
        covered = [name for name in plan.covered() if name in parameters and self.gradients.has(name)]
        grams, scale, residuals = None, None, {}
        if covered:
            grams = self.gradients.grams(covered)
            covered = grams.parameters
            if covered and self.gradients.batches == self.batches:
                index = {name: i for i, name in enumerate(parameters)}
                grad_norm_sq = grad_norm[[index[name] for name in covered]] ** 2
                scale = grad_scale(grams.gram, grad_norm_sq)
                residuals = dict(zip(covered, residual(grams.gram, grad_norm_sq, scale).tolist(), strict=True))
                grams = grams.times(scale)
        self.reading = GradientReading(
            dict(zip(parameters, tensors, strict=True)),
            before.copy(tensors),
            grad_norm,
            grams,
            scale,
            residuals,
            self.gradients.reduced_precision(),
        )


def _dense(grad: Tensor | None) -> Tensor:
    assert grad is not None
    return grad.to_dense() if grad.is_sparse else grad.detach()


def _is_skipped(optimizer: torch.optim.Optimizer) -> bool:
    found_inf = getattr(optimizer, "found_inf", None)  # set by a GradScaler for the time of the step
    return found_inf is not None and bool(found_inf)
