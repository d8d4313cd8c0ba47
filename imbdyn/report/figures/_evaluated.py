"""Columns of the table `classes` over the epochs, by split: what recall, loss and margin have in common."""

from __future__ import annotations

import pandas as pd

from imbdyn.report.figures.chart import Axis, NothingToDrawError
from imbdyn.report.figures.curves import EPOCHS, STEPS
from imbdyn.report.figures.figure import Choices
from imbdyn.report.figures.source import Source


def splits(source: Source) -> Choices:
    """Offer the splits of the table `classes`."""
    return {"split": source.evaluations}


def class_curves(source: Source, column: str, split: str) -> tuple[pd.DataFrame, Axis]:
    """Return a column of the table `classes` as rows with `x`, `class_id`, `count` and `y`, one for each x and class.

    By epoch, as findings read it: an evaluated split gives the last evaluation of each epoch, "train" the mean over the
    samples of its windows. By step if the run does not say its epochs.
    """
    rows = source.read("classes", ["step", "epoch", "class_id", "count", column], split=split)
    rows = rows.rename(columns={column: "y"})
    if not rows["y"].notna().any():
        raise NothingToDrawError(f"The trace has no {column} of {split}.")
    if rows["epoch"].isna().any():
        return rows.rename(columns={"step": "x"}), STEPS
    if split != "train":
        last = rows["step"] == rows.groupby("epoch")["step"].transform("max")
        return rows[last].rename(columns={"epoch": "x"}), EPOCHS
    rows = rows[rows["count"] > 0]
    sums = (
        rows.assign(weighted=rows["y"] * rows["count"])
        .groupby(["epoch", "class_id"])[["count", "weighted"]]
        .sum()
        .reset_index()
    )
    return sums.assign(y=sums["weighted"] / sums["count"]).rename(columns={"epoch": "x"}), EPOCHS


def last_values(source: Source, column: str, split: str) -> pd.DataFrame:
    """Return each class's last `y` and `count` of a split, indexed by class_id."""
    rows, _ = class_curves(source, column, split)
    last: pd.DataFrame = rows[rows["x"] == rows["x"].max()].set_index("class_id")[["count", "y"]]
    return last
