"""Tables with a row an evaluation (`features`, `class_features`, `classifier`): their splits and their x axis."""

from __future__ import annotations

import pandas as pd

from imbdyn.report.figures.chart import Axis, Lines, NothingToDrawError
from imbdyn.report.figures.curves import EPOCHS, STEPS, class_lines
from imbdyn.report.figures.figure import Choices
from imbdyn.report.figures.source import Source


def splits(source: Source) -> Choices:
    """Offer the evaluations whose features were read."""
    found = source.splits("features")
    return {"split": [split for split in source.evaluations if split in found]}


def evaluation_axis(source: Source, steps: pd.Series[int], split: str) -> tuple[pd.Series[float], Axis]:
    """Return the x of evaluations at `steps`: their epochs if each has one of its own, else the steps."""
    known = source.read("steps", ["step", "epoch"], split=split).dropna().set_index("step")["epoch"]
    epochs = steps.map(known)
    if epochs.isna().any() or epochs.nunique() != steps.nunique():
        return steps.astype(float), STEPS
    return epochs.astype(float), EPOCHS


def class_feature_lines(
    source: Source, column: str, split: str, y: Axis, levels: tuple[tuple[float, str], ...] = ()
) -> Lines:
    """Return a column of the table `class_features` by class over the evaluations of a split."""
    rows = source.read("class_features", ["step", "layer", "class_id", column], split=split)
    rows = rows[rows["layer"] == rows["layer"].iloc[0]] if len(rows) else rows
    if not rows[column].notna().any():
        raise NothingToDrawError(f"The trace has no {column} of {split or 'an evaluation'}.")
    x, axis = evaluation_axis(source, rows["step"], split)
    return class_lines(source, rows.assign(x=x, y=rows[column]), axis, y, levels=levels)
