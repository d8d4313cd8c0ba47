"""Recall of each class over epochs, and the measures of a single run that the claims compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from imbdyn.trace import Trace

#: A class counts as learned from the epoch in which its recall on the training data is first this high.
LEARNED = 0.5

#: The sentence of a run without recall on the training data by epoch.
NO_EPOCHS = "No train recall by epoch: set monitor.epoch."

#: Name of an evaluation of the training data.
TRAIN_EVAL = "train_eval"


def train_split(trace: Trace) -> str:
    """Return where recall on the training data is read: the evaluation "train_eval" if there is one, else "train".

    An evaluation has one set of weights; the windows of "train" mix those of a whole epoch.
    """
    return TRAIN_EVAL if TRAIN_EVAL in _splits(trace) else "train"


def held_out_split(trace: Trace) -> str | None:
    """Return where recall on held-out data is read: "test", else the first other evaluation by name, else None."""
    held_out = sorted(_splits(trace) - {"train", TRAIN_EVAL})
    return "test" if "test" in held_out else next(iter(held_out), None)


def _splits(trace: Trace) -> set[str]:
    return trace.kept("splits of classes", lambda: {str(split) for split in trace.classes["split"].unique()})


def recall_curves(trace: Trace, split: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return recall and sample counts by epoch (rows) and class (columns); recall is NaN where a class is absent.

    An evaluated split gives the last evaluation of each epoch. "train" gives the windows of each epoch together:
    sum of count * accuracy / sum of count. Rows whose epoch is not set are left out. Not to be changed: of a frozen
    trace they are made once.
    """
    return trace.kept(f"recall curves of {split}", lambda: _recall_curves(trace, split))


def _recall_curves(trace: Trace, split: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = trace.classes[trace.classes["split"] == split]
    if split != "train":
        rows = rows[rows["step"] == rows.groupby("epoch")["step"].transform("max")]
    known = rows["accuracy"].notna()  # null without a sample, or in a trace that does not have it
    correct = (rows["accuracy"] * rows["count"]).where(known, 0.0)
    sums = (
        rows.assign(correct=correct, count=rows["count"].where(known, 0))
        .groupby(["epoch", "class_id"])[["count", "correct"]]
        .sum()
    )
    counts = sums["count"].unstack("class_id", fill_value=0)
    return sums["correct"].unstack("class_id", fill_value=0) / counts.where(counts > 0), counts


def epoch_ends(trace: Trace, split: str) -> dict[float, int]:
    """Return the last step of each epoch of which the split has rows."""
    rows = trace.classes[trace.classes["split"] == split]
    return {float(epoch): int(step) for epoch, step in rows.groupby("epoch")["step"].max().items()}  # type: ignore[arg-type]


def epoch_learned(curve: pd.Series[float]) -> float | None:
    """Return the first epoch at which a recall curve is at least 0.5, or None if it never was."""
    reached = curve.index[curve >= LEARNED]
    return float(reached[0]) if len(reached) else None


def area_between(curves: pd.DataFrame, rare: Sequence[int], others: Sequence[int]) -> float:
    """Return the mean over epochs of (mean recall of `others`) - (mean recall of `rare`): positive if rare ones lag."""
    return float(difference(curves, rare, others).mean())


def difference(curves: pd.DataFrame, rare: Sequence[int], others: Sequence[int]) -> pd.Series[float]:
    """Return (mean recall of `others`) - (mean recall of `rare`) by epoch."""
    return group_recall(curves, others) - group_recall(curves, rare)


def group_recall(curves: pd.DataFrame, group: Sequence[int]) -> pd.Series[float]:
    """Return the mean recall of some classes by epoch, over those of them that are there."""
    return curves.reindex(columns=list(group)).mean(axis=1)


def final(curves: pd.DataFrame, class_id: int) -> float:
    """Return a class's recall at the last epoch, NaN if it is not in the curves."""
    return float(curves[class_id].iloc[-1]) if class_id in curves else float(np.nan)
