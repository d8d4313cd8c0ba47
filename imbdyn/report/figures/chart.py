"""What a figure shows: numbers with their axes, which the page and matplotlib both draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class NothingToDrawError(ValueError):
    """The trace does not have what a figure shows; the message says what is missing."""


@dataclass(frozen=True)
class Axis:
    """One axis of a chart."""

    label: str
    unit: str = ""
    log: bool = False
    lower: float | None = None
    """Fixed ends of the axis; None leaves them to the data."""
    upper: float | None = None
    whole: bool = False
    """Whether there is nothing between whole numbers, as between epochs: no tick stands there."""

    def title(self) -> str:
        """Return label and unit as they stand beside the axis."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


@dataclass(frozen=True)
class Series:
    """One line, one band with a line in it, or one cloud of points."""

    key: str
    """The same in every run: what a legend switches, and what a difference of runs matches."""
    label: str
    x: Floats
    y: Floats
    family: str = ""
    """Heading in the legend, such as "rare classes"; series of one family are switched together."""
    colour: int | None = None
    """Position in the palette; None recedes in grey."""
    dashed: bool = False
    lower: Floats | None = None
    """Lower and upper edge of a band around y."""
    upper: Floats | None = None
    names: tuple[str, ...] | None = None
    """A name for every point: points are drawn then, and no line."""


@dataclass(frozen=True)
class Lines:
    """Series over a common x axis."""

    x: Axis
    y: Axis
    series: tuple[Series, ...]
    levels: tuple[tuple[float, str], ...] = ()
    """Horizontal lines that mean something: value and label."""
    notes: tuple[str, ...] = ()
    """What was thinned, pooled or left out."""


@dataclass(frozen=True)
class Span:
    """A row of `Spans`: one class before and after."""

    key: str
    label: str
    start: float
    end: float
    lower: float
    """95% interval of `end`."""
    upper: float
    family: str = ""
    colour: int | None = None


@dataclass(frozen=True)
class Spans:
    """Two values for each class on one axis, joined by a line."""

    x: Axis
    start_label: str
    end_label: str
    spans: tuple[Span, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Matrix:
    """A symmetric matrix of classes for each of several moments."""

    title: str
    labels: tuple[str, ...]
    colours: tuple[int | None, ...]
    """Of the labels, as in `Series`."""
    frames: tuple[str, ...]
    """What each frame stands for, such as "steps 1 to 40 (8 sampled)"."""
    values: Floats
    """[F, K, K] in [-1, 1]; NaN where two classes were never read together."""
    counts: NDArray[np.int64]
    """[F, K, K]: how many readings a value is the mean of."""
    notes: tuple[str, ...] = ()


Chart = Lines | Spans | Matrix
