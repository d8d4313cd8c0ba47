"""Samples with labels, those for training and those held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from imbdyn.experiments.errors import DataError


class Scale(NamedTuple):
    """How uint8 images become inputs: (x / 255 - mean) / deviation, channel by channel."""

    mean: Tensor
    """float32 [C, 1, 1]."""
    deviation: Tensor
    """float32 [C, 1, 1]."""

    @classmethod
    def of(cls, images: Tensor) -> Scale:
        """Return mean and deviation of the pixels of uint8 images [N, C, H, W]; a constant channel is only shifted."""
        # Pixels have 256 values: their histogram is exact, and needs no copy of the images.
        histogram = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)])
        share = histogram.double() / histogram.sum(1, keepdim=True)
        levels = torch.arange(256, dtype=torch.float64) / 255
        mean = share @ levels
        deviation = (share @ levels.square() - mean.square()).clamp_min(0.0).sqrt()
        deviation[deviation < 1e-6] = 1.0
        return cls(mean.float()[:, None, None], deviation.float()[:, None, None])


@dataclass(frozen=True)
class Split:
    """N samples with labels, in memory or made by a dataset when they are asked for."""

    inputs: Tensor | Dataset[Any]
    """Numbers [N, ...], images uint8 [N, C, H, W], or a map-style dataset of (input, label)."""
    labels: Tensor
    """int64 [N], each in 0..C-1."""
    scale: Scale | None = None
    """Of uint8 images."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor, change: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Return the inputs of some samples, float32 [len(indices), ...].

        Args:
            indices: int64, on the CPU.
            change: an augmentation; it sees images before they are scaled.
        """
        if isinstance(self.inputs, Tensor):
            inputs = self.inputs[indices.to(self.inputs.device)]
        else:
            inputs = torch.stack([torch.as_tensor(self.inputs[index][0]) for index in indices.tolist()])
        if change is not None:
            inputs = change(inputs)
        if self.scale is None:
            return inputs.float()
        return (inputs.float() / 255 - self.scale.mean) / self.scale.deviation

    def to(self, device: torch.device) -> Split:
        """Return the samples with what is in memory on `device`; labels stay on the CPU, where samples are chosen."""
        scale = None if self.scale is None else Scale(self.scale.mean.to(device), self.scale.deviation.to(device))
        return replace(
            self, inputs=self.inputs.to(device) if isinstance(self.inputs, Tensor) else self.inputs, scale=scale
        )


@dataclass(frozen=True)
class SplitData:
    """What a source gives: at least two classes, and a training sample of each."""

    train: Split
    test: Split
    class_names: tuple[str, ...]
    """C names."""

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise DataError(f"data need at least 2 classes, got {', '.join(self.class_names) or 'none'}")
        for name, split in (("training", self.train), ("test", self.test)):
            if not len(split):
                raise DataError(f"data need {name} samples, got none")
            lowest, highest = int(split.labels.min()), int(split.labels.max())
            if lowest < 0 or highest >= self.num_classes:
                wrong = lowest if lowest < 0 else highest
                raise DataError(f"a label of {self.num_classes} classes is 0 to {self.num_classes - 1}, got {wrong}")
        empty = [self.class_names[c] for c, count in enumerate(self.train_counts()) if count == 0]
        if empty:
            raise DataError(f"every class needs a training sample, and {', '.join(empty[:5])} has none")

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input: [C, H, W] of an image, [D] of a row of a table."""
        return tuple(self.train.take(torch.zeros(1, dtype=torch.int64)).shape[1:])

    def train_counts(self) -> list[int]:
        """Return the training samples of each class."""
        counts: list[int] = torch.bincount(self.train.labels, minlength=self.num_classes).tolist()
        return counts


def held_out(labels: Tensor, test_share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Draw which samples are held out, round(test_share n_c) of every class c, at least one and not all.

    Returns: int64 indices of the training and of the test samples, ascending.
    Raises: DataError if a class has a single sample.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    train, test = [], []
    for class_id in labels.unique().tolist():
        members = order[labels[order] == class_id]
        if len(members) < 2:
            raise DataError(f"a class needs 2 samples, one of them to hold out, and class {class_id} has 1")
        cut = min(max(1, round(test_share * len(members))), len(members) - 1)
        test.append(members[:cut])
        train.append(members[cut:])
    return torch.cat(train).sort().values, torch.cat(test).sort().values


def split_off(inputs: Tensor | Dataset[Any], labels: Tensor, test_share: float, seed: int) -> tuple[Split, Split]:
    """Hold samples out as `held_out` draws them; uint8 images are scaled by what is left for training."""
    train, test = held_out(labels, test_share, seed)
    if not isinstance(inputs, Tensor):
        return Split(Subset(inputs, train.tolist()), labels[train]), Split(Subset(inputs, test.tolist()), labels[test])
    scale = Scale.of(inputs[train]) if inputs.dtype == torch.uint8 else None
    return Split(inputs[train], labels[train], scale), Split(inputs[test], labels[test], scale)


def of_images(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], class_names: tuple[str, ...], scale: Scale | None = None
) -> SplitData:
    """Return uint8 images [N, C, H, W] with labels int64 [N], scaled by the training images unless `scale` is given.

    Raises: DataError if training and test images differ in shape.
    """
    if train[0].shape[1:] != test[0].shape[1:]:
        raise DataError(
            f"training and test images need one shape, got {list(train[0].shape[1:])} and {list(test[0].shape[1:])}"
        )
    scale = scale or Scale.of(train[0])
    return SplitData(Split(*train, scale), Split(*test, scale), class_names)
