"""Label-distribution-aware margins with deferred re-weighting: LDAM-DRW.

Source: Cao et al. 2019, arXiv 1906.07413, and its public code (losses.py, cifar_train.py, models/resnet_cifar.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imbdyn.experiments.errors import ConfigError, require
from imbdyn.experiments.methods.class_balanced import effective_number_weights
from imbdyn.experiments.methods.method import Method


def margins(counts: Tensor, largest: float) -> Tensor:
    """Return m_c = largest n_c^(-1/4) / max_k n_k^(-1/4): float64 [C]; the rarest class has the `largest` margin."""
    inverse = counts.double().pow(-0.25)
    return largest * inverse / inverse.max()


class CosineLinear(nn.Module):
    """z_c = scale cos(x, w_c), without a bias; rows are drawn uniformly from the directions of a cube, with norm 1."""

    def __init__(self, in_features: int, out_features: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(F.normalize(torch.empty(out_features, in_features).uniform_(-1, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, out_features]."""
        # The parameter itself enters the linear function: so a Monitor knows it, and its input as the features.
        norms = self.weight.norm(dim=1).clamp_min(1e-12)
        logits: Tensor = F.linear(F.normalize(x), self.weight) * (self.scale / norms)
        return logits


def replace_classifier(model: nn.Module, num_classes: int, scale: float) -> None:
    """Put a CosineLinear in the place of the model's last nn.Linear with `num_classes` outputs.

    Raises: ConfigError if it has none.
    """
    found = [
        (name, module.in_features)
        for name, module in model.named_modules()
        if name and isinstance(module, nn.Linear) and module.out_features == num_classes
    ]
    if not found:
        raise ConfigError(f"method.name 'ldam' needs a model with a torch.nn.Linear of {num_classes} outputs inside")
    path, in_features = found[-1]
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, CosineLinear(in_features, num_classes, scale))


@dataclass(frozen=True, kw_only=True)
class Ldam(Method):
    """`ldam`: cross-entropy of scale (cos_c - m_y [c = y]); class-balanced weights after `reweight_after` epochs.

    The margin is subtracted in training only; the network's logits are scale cos_c.
    """

    name: str = "ldam"
    margin: float = 0.5
    """Of the rarest class."""
    scale: float = 30.0
    reweight_after: int = 160
    """Epochs without weights (DRW); as many as train.epochs for none with them."""
    beta: float = 0.9999
    """Of the weights."""

    def __post_init__(self) -> None:
        require(self.margin >= 0.0, "method.margin must be at least 0", self.margin)
        require(self.scale > 0.0, "method.scale must be above 0", self.scale)
        require(self.reweight_after >= 0, "method.reweight_after must be at least 0", self.reweight_after)
        require(0.0 <= self.beta < 1.0, "method.beta must be at least 0 and below 1", self.beta)

    def prepare(self, model: nn.Module, counts: Tensor) -> None:
        """Give the model a cosine classifier."""
        replace_classifier(model, len(counts), self.scale)

    def loss(self, logits: Tensor, labels: Tensor, counts: Tensor, epoch: int) -> Tensor:
        """Return the weighted mean."""
        subtracted = self.scale * margins(counts, self.margin).to(logits)
        shifted = logits - subtracted * F.one_hot(labels, logits.shape[1])
        weights = effective_number_weights(counts, self.beta).to(logits) if epoch > self.reweight_after else None
        return F.cross_entropy(shifted, labels, weights)
