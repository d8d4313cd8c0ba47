"""The loss of the rare classes and of the others on the training data, over the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from imbdyn.findings.groups import Groups

if TYPE_CHECKING:
    from imbdyn.trace import Trace


def loss_readings(trace: Trace, group: Groups, split: str) -> pd.DataFrame:
    """Return mean loss and recall of both groups by step of a split's rows.

    Columns `rare`, `others` (nats a sample), `rare_recall`, and `since_step`; a reading without a sample of one of the
    groups, or with a loss that is not finite, is left out. A group's loss is that of its samples,
    sum_c n_c L_c / sum_c n_c, so that it is its contribution to the loss of all but for a factor.
    """
    rows = trace.classes
    rows = rows[(rows["split"] == split) & (rows["count"] > 0)]
    rows = rows.assign(
        rare=rows["class_id"].isin(group.rare),
        loss=rows["loss"].fillna(np.inf) * rows["count"],
        correct=rows["accuracy"] * rows["count"],
    )
    sums = rows.groupby(["step", "since_step", "rare"])[["loss", "correct", "count"]].sum()
    mean = sums[["loss", "correct"]].div(sums["count"], axis=0).unstack("rare")
    columns = {"rare": ("loss", True), "others": ("loss", False), "rare_recall": ("correct", True)}
    readings = {name: mean.get(column, np.nan) for name, column in columns.items()}
    frame = pd.DataFrame(readings, index=mean.index).reset_index("since_step")
    known: pd.DataFrame = frame[np.isfinite(frame["rare"]) & np.isfinite(frame["others"])]
    return known
