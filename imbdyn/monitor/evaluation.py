"""One evaluation: the logits and the features of every batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imbdyn.monitor.window import LogitSums
from imbdyn.ops import ClassMoments, add_class_moments, class_moments
from imbdyn.statistics import neural_collapse
from imbdyn.taps import FeatureWatch

Floats = NDArray[np.float64]

#: NC1 and NC4 need every feature beside the final class means; an evaluation with more bytes goes without them.
MEMORY_BOUND = 64 << 20


class Collapse(NamedTuple):
    """Neural collapse of an evaluation's features; see `imbdyn.statistics.neural_collapse`. NaN: not defined."""

    nc1: float
    nc1_sample: float
    nc1_of_class: Floats
    """[C]."""
    geometry: neural_collapse.Geometry
    nc4: float


class Evaluation:
    """Collects one `with monitor.evaluate(split)` block."""

    def __init__(self, split: str, num_classes: int, ignore_index: int) -> None:
        self.split = split
        self.batches = 0
        self.logits = LogitSums(num_classes, ignore_index)
        self.moments: ClassMoments | None = None
        self._num_classes = num_classes
        self._ignore_index = ignore_index
        self._held: list[tuple[Tensor, Tensor, Tensor]] | None = []
        self._held_bytes = 0

    def add(self, labels: Tensor, logits: Tensor | None, watch: FeatureWatch | None) -> None:
        """Read a batch: logits [N, C], and the features that `watch` saw on their way into the classifier."""
        self.batches += 1
        if logits is None:
            return
        self.logits.add(logits, labels)
        features = None if watch is None else watch.features
        if features is not None and features.dim() == 2 and features.shape[0] == labels.shape[0]:
            self._add_features(features, labels, logits.argmax(1))

    def _add_features(self, features: Tensor, labels: Tensor, prediction: Tensor) -> None:
        """Read the features [N, D], labels [N] and predicted classes [N] of one batch."""
        if self.moments is None:
            self.moments = class_moments(features, labels, self._num_classes, ignore_index=self._ignore_index)
        else:
            add_class_moments(self.moments, features, labels, ignore_index=self._ignore_index)
        self._held_bytes += features.nbytes
        if self._held_bytes > MEMORY_BOUND:
            self._held = None
        if self._held is not None:
            self._held.append((features.clone(), labels.clone(), prediction))

    def collapse(self, weight: Tensor) -> Collapse:
        """Measure neural collapse against the classifier's rows `weight` [C, D], over the classes that are present."""
        assert self.moments is not None
        present = self.moments.count > 0
        mean_KD = self.moments.mean[present].double().cpu().numpy()
        geometry = neural_collapse.geometry(mean_KD, weight[present].detach().double().cpu().numpy())
        nc1 = nc1_sample = nc4 = np.nan
        of_class_C = np.full(self._num_classes, np.nan)
        if self._held:
            features, labels, prediction = (torch.cat(parts).cpu() for parts in zip(*self._held, strict=True))
            counted = labels != self._ignore_index
            local_C = torch.where(present, present.cumsum(0) - 1, -1).cpu()
            features_ND = features[counted].double().numpy()
            nc1, nc1_sample, of_class_C[present.cpu().numpy()] = neural_collapse.variability(
                features_ND, local_C[labels[counted]].numpy(), mean_KD
            )
            nc4 = neural_collapse.nc4(features_ND, local_C[prediction[counted]].numpy(), mean_KD)
        return Collapse(nc1, nc1_sample, of_class_C, geometry, nc4)
