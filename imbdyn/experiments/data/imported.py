"""Any map-style `torch.utils.data.Dataset`, by import path."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from imbdyn.experiments.data.source import Source
from imbdyn.experiments.data.split import Split, SplitData, split_off
from imbdyn.experiments.errors import DataError, require
from imbdyn.experiments.registry import imported

#: Where datasets keep their labels, so that no input need be made to know them.
_LABEL_ATTRIBUTES = ("targets", "labels")


@dataclass(frozen=True, kw_only=True)
class ImportedDataset(Source):
    """`module:attribute`: a dataset of (input, label), or what makes one.

    Called with `train` for the training samples and with `test` for those held out; without a table [data.test] samples
    of the first are held out. Inputs are made when they are asked for, so what the dataset does at random stays random.
    It may keep its labels as `targets` or `labels` and its class names as `classes`.
    """

    train: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments."""
    test: dict[str, Any] | None = None
    """Keyword arguments."""
    test_share: float = 0.3
    """Share of the samples that is held out, stratified by class, where there is no table [data.test]."""

    def __post_init__(self) -> None:
        require(0.0 < self.test_share < 1.0, "data.test_share must be above 0 and below 1", self.test_share)

    @property
    def seeded(self) -> bool:
        """Whether samples of the training set are held out."""
        return self.test is None

    def load(self, seed: int) -> SplitData:
        """Return the samples. Raises: DataError if it is no map-style dataset of inputs with labels."""
        train = self._made(self.train)
        labels = self._labels(train)
        if self.test is None:
            splits = split_off(train, labels, self.test_share, seed)
        else:
            test = self._made(self.test)
            splits = Split(train, labels), Split(test, self._labels(test))
        classes = int(max(split.labels.max() for split in splits)) + 1
        names = getattr(train, "classes", None) or range(classes)
        return SplitData(*splits, tuple(str(name) for name in names))

    def _made(self, arguments: dict[str, Any]) -> Dataset[Any]:
        found = imported(self.name, "data.name")
        try:
            is_dataset = hasattr(found, "__getitem__") and not isinstance(found, type)
            made = found if is_dataset else found(**arguments)
            size = len(made)
            made[0]
        except Exception as error:  # a user's code may raise anything
            raise DataError(f"{self.name} gives no map-style dataset: {type(error).__name__}: {error}") from error
        if size == 0:
            raise DataError(f"{self.name} gives a dataset without samples")
        return cast("Dataset[Any]", made)

    def _labels(self, dataset: Any) -> Tensor:
        kept = next((getattr(dataset, name) for name in _LABEL_ATTRIBUTES if hasattr(dataset, name)), None)
        if kept is None:
            kept = [dataset[index][1] for index in range(len(dataset))]
        try:
            labels = torch.as_tensor(kept)
        except (TypeError, ValueError, RuntimeError):
            labels = torch.empty(0)
        if labels.is_floating_point() or labels.dim() != 1 or len(labels) != len(dataset):
            raise DataError(f"{self.name} must give a whole number as the label of each of its {len(dataset)} samples")
        return labels.to(torch.int64)
