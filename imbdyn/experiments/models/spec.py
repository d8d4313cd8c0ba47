"""The base of all networks' options."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from imbdyn.experiments.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ModelSpec(ABC):
    """Base of the networks' options: the fields are the keys of the section [model]."""

    name: str

    @abstractmethod
    def build(self, shape: Sequence[int], num_classes: int) -> nn.Module:
        """Make the network, from inputs [N, *shape] to logits [N, num_classes]; torch's random state decides weights.

        Raises: ConfigError if it cannot take such inputs.
        """

    def images(self, shape: Sequence[int], *, at_least: int = 1) -> tuple[int, int, int]:
        """Return channels, height and width. Raises: ConfigError if inputs are no images, or smaller than that."""
        if len(shape) != 3 or min(shape[1:]) < at_least:
            raise ConfigError(
                f"model.name {self.name!r} needs images of at least {at_least} x {at_least} pixels, and inputs are "
                f"{list(shape)}"
            )
        channels, height, width = shape
        return channels, height, width
