"""The rows of a trace that several phenomena read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imbdyn.findings.recall import TRAIN_EVAL, held_out_split

if TYPE_CHECKING:
    import pandas as pd

    from imbdyn.trace import Trace

#: Name of all covered parameters together, as one.
WHOLE_NETWORK = "*"


def network_gradients(trace: Trace) -> pd.DataFrame:
    """Return the rows of `class_gradients` on all parameters together: of a large model, few of that table's rows."""
    import pyarrow.dataset as ds

    return trace.frame("class_gradients", ds.field("parameter") == WHOLE_NETWORK)


def features_split(trace: Trace) -> str | None:
    """Return where features are read: the evaluation "train_eval", which collapse is about, else one that there is."""
    splits = set(trace.features["split"])
    return TRAIN_EVAL if TRAIN_EVAL in splits else held_out_split(trace)


def on_split(split: str | None) -> str:
    """Name the data whose features were read, where they are not the training data that collapse is about."""
    return "" if split is None or split == TRAIN_EVAL else f" on {split}"


def last_rows(frame: pd.DataFrame, split: str | None) -> pd.DataFrame:
    """Return the rows of the last step that has any of this split, of one layer if there are several."""
    rows = frame[frame["split"] == split]
    rows = rows[rows["step"] == rows["step"].max()]
    one_layer: pd.DataFrame = rows[rows["layer"] == rows["layer"].iloc[-1]] if "layer" in rows and len(rows) else rows
    return one_layer


def longest_run(holds: pd.Series[bool]) -> tuple[int, int] | None:
    """Return the first and the last step of the longest run of steps (the index) at which something holds.

    The first of several equally long ones; None if it never holds.
    """
    runs = (holds != holds.shift()).cumsum()[holds]
    if runs.empty:
        return None
    steps = runs.index[runs == runs.value_counts(sort=False).idxmax()]
    return int(steps[0]), int(steps[-1])


def span(steps: pd.Index[int] | pd.Series[int]) -> tuple[int, int] | None:
    """Return the first and the last of some steps; None if there are none."""
    return (int(steps.min()), int(steps.max())) if len(steps) else None
