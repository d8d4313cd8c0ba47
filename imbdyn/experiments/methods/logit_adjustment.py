"""Logits adjusted by the class frequencies, in the loss or afterwards.

Source: Menon et al. 2021, arXiv 2007.07314. With pi_c = n_c / n: the loss is the cross-entropy of z + tau log pi
(balanced softmax, Ren et al. 2020, at tau = 1); post hoc the prediction is argmax z - tau log pi.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from imbdyn.experiments.methods.method import Method


def log_prior(counts: Tensor) -> Tensor:
    """Return log pi_c: float64 [C]."""
    return (counts.double() / counts.sum()).log()


@dataclass(frozen=True, kw_only=True)
class LogitAdjustment(Method):
    """`logit_adjustment`: in the loss, or with `post_hoc` in the predictions of a network trained as usual.

    Post hoc the network itself returns the adjusted logits when it is in eval mode.
    """

    name: str = "logit_adjustment"
    tau: float = 1.0
    post_hoc: bool = False

    def prepare(self, model: nn.Module, counts: Tensor) -> None:
        """Post hoc, adjust the logits in eval mode."""
        if not self.post_hoc:
            return
        shift = self.tau * log_prior(counts)

        def adjust(module: nn.Module, inputs: Any, logits: Tensor) -> Tensor:  # noqa: ARG001
            return logits if module.training else logits - shift.to(logits)

        model.register_forward_hook(adjust)

    def loss(self, logits: Tensor, labels: Tensor, counts: Tensor, epoch: int) -> Tensor:
        """Return the mean."""
        if self.post_hoc:
            return super().loss(logits, labels, counts, epoch)
        return F.cross_entropy(logits + self.tau * log_prior(counts).to(logits), labels)
