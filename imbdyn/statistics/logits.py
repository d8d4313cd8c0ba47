"""From the sums of `class_logits` over a window to the rates of the tables `classes` and `steps`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imbdyn.ops import ClassLogits

Floats = NDArray[np.float64]


class ClassRates(NamedTuple):
    """One number a class, each [C]; NaN where the class has no sample to divide by."""

    loss: Floats
    accuracy: Floats
    precision: Floats
    margin: Floats
    confidence: Floats


class OverallRates(NamedTuple):
    """The same window over all classes; NaN where it has no sample."""

    loss: float
    accuracy: float
    balanced_accuracy: float


def class_rates(sums: Floats) -> ClassRates:
    """Divide sums [8, C] (rows as in `ClassLogits`) by the counts they belong to."""
    s = ClassLogits(*sums)
    return ClassRates(
        loss=_ratio(s.loss_sum, s.count),
        accuracy=_ratio(s.correct, s.count),
        precision=_ratio(s.correct, s.predicted),
        margin=_ratio(s.margin_sum, s.count),
        confidence=_ratio(s.confidence_sum, s.count),
    )


def overall_rates(sums: Floats) -> OverallRates:
    """Return loss and accuracy over all samples, and the mean recall of the classes that are present."""
    s = ClassLogits(*sums)
    count = s.count.sum()
    if count == 0:
        return OverallRates(np.nan, np.nan, np.nan)
    recall = _ratio(s.correct, s.count)
    return OverallRates(float(s.loss_sum.sum() / count), float(s.correct.sum() / count), float(np.nanmean(recall)))


def _ratio(part: object, whole: object) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(whole) > 0, np.asarray(part) / np.asarray(whole), np.nan)
