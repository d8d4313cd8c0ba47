"""What is known between two optimizer steps, and what is read when the step comes."""

from __future__ import annotations

import torch

from imbdyn.monitor import ranks
from imbdyn.monitor.gradients import StepGradients
from imbdyn.monitor.model import WatchedModel
from imbdyn.monitor.reading import GradientReading, Scaling
from imbdyn.monitor.weights_before import WeightsBefore
from imbdyn.ops import parameter_norms
from imbdyn.ops._checks import without_graph
from imbdyn.taps import Plan


class OptimizerStep:
    """Everything that one optimizer step accumulates, from its first micro-batch on."""

    def __init__(self, gradients: StepGradients, *, sampled: bool, read_logits: bool) -> None:
        self.sampled = sampled
        self.read_logits = read_logits
        self.batches = 0
        self.gradients = gradients
        self.batches_read: int | None = None
        """How many batches it had when its gradients were read; None if they were not."""
        self.reading: GradientReading | None = None

    def read_gradients(
        self, model: WatchedModel, optimizer: torch.optim.Optimizer, plan: Plan, before: WeightsBefore
    ) -> None:
        """Fill `reading`: called when the gradients are complete and the weights have not moved.

        Only the parameters that `optimizer` is about to move are read: another optimizer's have steps of their own.
        """
        scaling = Scaling.of(optimizer)
        if scaling.skips():
            return
        moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
        parameters: dict[str, torch.Tensor] = {
            n: p for n, p in model.watched().items() if p.grad is not None and id(p) in moved
        }
        grads = [_dense(p.grad) for p in parameters.values()]
        tensors = list(parameters.values())
        nothing = [None] * len(grads)
        grad_norm = parameter_norms(grads, nothing, nothing).tensors[:, 0]
        comparable = self.gradients.batches == self.batches > 0 and not ranks.several()
        covered = [name for name in plan.covered() if name in parameters and self.gradients.has(name)]
        self.reading = GradientReading(
            parameters,
            before.copy(tensors),
            grad_norm,
            scaling,
            self.gradients.grams(covered) if covered else None,
            comparable=comparable,
            unseen=[n for n in parameters if comparable and n in plan.rule_of and self.gradients.is_missing(n)],
            reduced_precision=self.gradients.reduced_precision(),
        )


def _dense(grad: torch.Tensor | None) -> torch.Tensor:
    assert grad is not None
    return grad.to_dense() if grad.is_sparse else without_graph(grad)
