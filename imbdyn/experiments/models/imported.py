"""A user's own network, by import path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from imbdyn.experiments.errors import ConfigError
from imbdyn.experiments.models.spec import ModelSpec
from imbdyn.experiments.registry import imported


@dataclass(frozen=True, kw_only=True)
class ImportedModel(ModelSpec):
    """`module:callable`: called with `num_classes` and the options, it returns a module from inputs to logits."""

    options: dict[str, Any] = field(default_factory=dict)
    """Further keyword arguments."""

    def build(self, shape: Sequence[int], num_classes: int) -> nn.Module:  # noqa: ARG002
        """Make it. Raises: ConfigError if the call fails or returns something else."""
        make = imported(self.name, "model.name")
        try:
            made = make(num_classes=num_classes, **self.options)
        except Exception as error:  # a user's code may raise anything
            raise ConfigError(f"model.name {self.name!r} cannot be made: {type(error).__name__}: {error}") from error
        if not isinstance(made, nn.Module):
            raise ConfigError(f"model.name {self.name!r} must return a torch.nn.Module, got {type(made).__name__}")
        return made
