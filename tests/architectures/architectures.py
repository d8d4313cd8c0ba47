"""The table of architectures: name -> how to build the network, and a batch for it.

All have random weights and few classes; where a width, depth or image size is an argument, it is small. Those of timm
and transformers need the extra `test-models` and come under the marker `models`; the others run with every commit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

CLASSES = 5
#: Eight samples of four classes: class 3 is absent, class 4 has a single sample.
LABELS = torch.tensor([0, 1, 0, 2, 4, 1, 0, 2])
SAMPLES = len(LABELS)
#: A softmax over keys does not see a constant that is added to all of a query's scores, which a bias of the keys is.
KEY_BIAS = r"(key|k_proj|k_lin|\.k)\.bias$"


@dataclass(frozen=True)
class Architecture:
    """One network of the table."""

    make: Callable[[], nn.Module]
    inputs: Callable[[torch.Generator], dict[str, Tensor]]
    """Keyword arguments of the forward pass."""
    readable: bool = True
    """False: some of its functions may be named in run.json as not covered; what is covered must be right."""
    zero_gradient: str | None = None
    """Pattern of the parameters whose gradient is zero in exact arithmetic, so that all its digits are rounding."""

    def build(self) -> nn.Module:
        """Return the network in training mode, without dropout, and with no branch switched off.

        Many networks start as near-identities: scales of 0 or 1e-6, zero biases and position embeddings. Such
        parameters get noise, since a wrong reading of what is zero looks right.
        """
        torch.manual_seed(0)
        model = self.make().train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        with torch.no_grad():
            for p in model.parameters():
                if p.dim() < 2 or p.abs().max() < 1e-3:
                    p.add_(0.05 * torch.randn_like(p))
        return model

    def batch(self) -> dict[str, Tensor]:
        """Return the forward pass's arguments for `LABELS`."""
        return self.inputs(torch.Generator().manual_seed(1))


def images(*shape: int) -> Callable[[torch.Generator], dict[str, Tensor]]:
    """Return a maker of inputs [SAMPLES, *shape] for a network whose argument is called x."""
    return lambda generator: {"x": torch.randn(SAMPLES, *shape, generator=generator)}


def table() -> list[Any]:
    """Return a pytest parameter for each architecture, named after it."""
    import from_timm
    import from_transformers
    import small_networks

    real = from_timm.ARCHITECTURES | from_transformers.ARCHITECTURES
    return [pytest.param(small_networks.ARCHITECTURES[name], id=name) for name in small_networks.ARCHITECTURES] + [
        pytest.param(architecture, id=name, marks=pytest.mark.models) for name, architecture in real.items()
    ]
