"""Fewer points than were recorded, without hiding an extreme."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imbdyn.report.figures.chart import Floats

#: A curve has at most so many points.
MOST_POINTS = 300


def thinned(y: Floats, most: int = MOST_POINTS) -> NDArray[np.int64]:
    """Return the positions [at most `most`] of the points of a curve that are drawn, in order.

    All of them if there are no more than `most`. Else the readings are cut into spans of equal number, and the smallest
    and the largest of each are drawn, with the first and the last reading: every point is a reading, and no peak is
    lost. y has no NaN.
    """
    if len(y) <= most:
        return np.arange(len(y))
    spans = np.array_split(np.arange(len(y)), (most - 2) // 2)
    extremes = [position for span in spans for position in (span[y[span].argmin()], span[y[span].argmax()])]
    return np.unique([0, *extremes, len(y) - 1])
