"""Any network of timm, with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from torch import nn

from imbdyn.experiments.errors import ConfigError, MissingPackageError
from imbdyn.experiments.models.spec import ModelSpec
from imbdyn.experiments.registry import nearest


@dataclass(frozen=True, kw_only=True)
class TimmSpec(ModelSpec):
    """`timm:NAME`: timm.create_model(NAME), without pretrained weights."""

    options: dict[str, Any] = field(default_factory=dict)
    """Further keyword arguments."""

    def build(self, shape: Sequence[int], num_classes: int) -> nn.Module:
        """Make it. Raises: MissingPackageError if timm is not installed, or cannot be imported."""
        try:
            import timm
        except ModuleNotFoundError as error:
            raise MissingPackageError(f"model.name {self.name!r} needs timm: pip install timm") from error
        except Exception as error:  # a torchvision for another torch, which timm imports, is a RuntimeError
            raise MissingPackageError(
                f"model.name {self.name!r} needs timm, which is installed and cannot be imported: "
                f"{type(error).__name__}: {error}"
            ) from error
        name = self.name.partition(":")[2]
        if not timm.is_model(name):
            raise ConfigError(f"timm has no model {name!r}{nearest(name, timm.list_models())}")
        arguments = {"in_chans": self.images(shape)[0], "num_classes": num_classes, **self.options}
        try:
            return cast("nn.Module", timm.create_model(name, pretrained=False, **arguments))
        except Exception as error:  # each network has its own errors for options that do not fit
            raise ConfigError(f"timm cannot make {name} with {arguments}: {error}") from error
