"""The gradients of one step as the optimizer sees them: read before it moves the weights, known when they have come."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imbdyn.monitor import arrivals
from imbdyn.monitor.class_grams import ClassGrams, GramsToCome
from imbdyn.statistics.class_gradients import grad_scale, residual

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scaling:
    """What a GradScaler tells a fused optimizer, which unscales or skips the step by itself; None where there is none.

    Tensors, since a look at them would wait where they are on a GPU.
    """

    scale: Tensor | None
    found_inf: Tensor | None

    @classmethod
    def of(cls, optimizer: torch.optim.Optimizer) -> Scaling:
        """Return what is set for the time of the step."""
        found = [getattr(optimizer, name, None) for name in ("grad_scale", "found_inf")]
        scale, found_inf = (
            None if value is None else value if isinstance(value, Tensor) else torch.tensor(float(value))
            for value in found
        )
        return cls(scale, found_inf)

    def skips(self) -> bool:
        """Whether the optimizer leaves the step out, as far as that is known without waiting."""
        return self.found_inf is not None and arrivals.may_look(self.found_inf) and bool(self.found_inf)

    def tensors(self) -> list[Tensor]:
        """Return what is to be sent to the host."""
        return [t for t in (self.scale, self.found_inf) if t is not None]

    def come(self, numbers: list[Floats]) -> tuple[float, bool]:
        """Return the scale that gradients have, and whether the step is left out, from what was sent."""
        values = [float(number) for number in numbers]
        scale = values.pop(0) if self.scale is not None else 1.0
        return scale or 1.0, bool(values and values[0])


@dataclass(frozen=True)
class Gradients:
    """The numbers of a reading."""

    grad_norm: Floats
    """[P], ||p.grad||."""
    grams: ClassGrams | None
    """Class gradients of the covered parameters, times `grad_scale`; None if there are none."""
    grad_scale: float | None
    """None if the gradients are made of more than what was read."""
    residual: dict[str, float]
    """By covered parameter; empty without a scale."""
    missing: list[str]
    """Parameters that have a gradient and are known, and of which nothing was seen all the same."""


@dataclass(frozen=True)
class GradientReading:
    """What was read of a step, where it was read."""

    parameters: dict[str, Tensor]
    """The P parameters that have a gradient."""
    previous: list[Tensor]
    """Copies of them, to measure the update by; valid until the next reading."""
    grad_norm: Tensor
    """[P], norms of the gradients as they are, which may be scaled."""
    scaling: Scaling
    grams: GramsToCome | None
    comparable: bool
    """Whether the gradients are made of what was read: all micro-batches were, and they are no means over ranks."""
    unseen: list[str]
    """Known parameters of which nothing was seen, which is an error if their gradient is not 0."""
    reduced_precision: bool

    def tensors(self) -> list[Tensor]:
        """Return what is to be sent to the host."""
        return [self.grad_norm, *(self.grams.tensors() if self.grams else []), *self.scaling.tensors()]

    def come(self, numbers: list[Floats]) -> Gradients | None:
        """Return the gradients from what was sent; None if the optimizer has left the step out."""
        sent = 1 + (len(self.grams.tensors()) if self.grams else 0)
        scale, skipped = self.scaling.come(numbers[sent:])
        if skipped:
            return None
        # a fused optimizer takes a GradScaler's scale out of the gradients itself
        grad_norm = numbers[0] / scale
        norm_of = dict(zip(self.parameters, grad_norm.tolist(), strict=True))
        grams, common, residuals = None, None, {}
        if self.grams is not None:
            grams = self.grams.come(numbers[1:sent])
            if grams.parameters and self.comparable:
                grad_norm_sq = np.array([norm_of[name] for name in grams.parameters]) ** 2
                common = grad_scale(grams.gram, grad_norm_sq)
                residuals = dict(
                    zip(grams.parameters, residual(grams.gram, grad_norm_sq, common).tolist(), strict=True)
                )
                grams = grams.times(common)
        missing = [name for name in self.unseen if norm_of[name] > 0]
        return Gradients(grad_norm, grams, common, residuals, missing)
