"""A curve as one line of text: a cell for each of several spans of its readings."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Lowest to highest; digits where the encoding has no blocks: tenths of the top.
BLOCKS, DIGITS = "▁▂▃▄▅▆▇█", "0123456789"

#: A span without a reading, and one whose mean is below 0.
GAP, BELOW = " ", "-"


def pooled(curve: pd.Series[float], most: int) -> Floats:
    """Return a curve in at most `most` cells: means over spans of equal numbers of readings, as they come.

    A reading that is NaN or infinite counts as missing, and a cell without any other is NaN.
    """
    values = curve.to_numpy(dtype=float, na_value=np.nan)
    values = np.where(np.isfinite(values), values, np.nan)
    spans = np.array_split(values, min(most, len(values)) or 1)
    known = [span[~np.isnan(span)] for span in spans if len(span)]
    return np.array([span.mean() if len(span) else np.nan for span in known])


def sparkline(cells: Floats, top: float, *, ascii_only: bool = False) -> str:
    """Return a mark for each cell: its height between 0 and `top`, a gap for NaN, and "-" below 0."""
    marks = DIGITS if ascii_only else BLOCKS
    return "".join(
        GAP
        if np.isnan(cell)
        else BELOW
        if cell < 0
        else marks[min(int(cell / top * len(marks)), len(marks) - 1) if top > 0 else 0]
        for cell in cells
    )
