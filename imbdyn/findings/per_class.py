"""What a trace says of each class: the numbers that `imbdyn show` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from imbdyn.findings.groups import class_counts, class_names, groups
from imbdyn.findings.recall import epoch_learned, held_out_split, recall_curves, train_split

if TYPE_CHECKING:
    from imbdyn.trace import Trace

#: Gradient norms are averaged over this share of the sampled steps, at the start and at the end.
TENTH = 0.1


def per_class(trace: Trace) -> pd.DataFrame:
    """Return a row per class, indexed by class_id; what the trace does not have is NaN (or NA).

    Columns: `name`; `rare` (bool); `count` (training samples); `epoch_learned` (first epoch with at least 0.5 recall on
    the training data, NA if never); `train_recall` and `test_recall` at the last epoch; `gap`, their difference;
    `grad_norm_early` and `grad_norm_late` (mean of ||G_c|| of the whole network over the first and the last tenth of
    the sampled steps, of those that had samples of the class); `row_norm` (of the classifier, the last one read).
    """
    counts = class_counts(trace)
    frame = pd.DataFrame(
        {"name": class_names(trace), "count": counts}, index=pd.RangeIndex(len(counts), name="class_id")
    )
    frame.insert(1, "rare", frame.index.isin(groups(trace).rare))
    train, _ = recall_curves(trace, train_split(trace))
    learned = [epoch_learned(train[c]) if c in train else None for c in frame.index]
    frame["epoch_learned"] = pd.array(learned, dtype="Float64")
    frame["train_recall"] = _last(train, frame.index)
    held_out = held_out_split(trace)
    test = recall_curves(trace, held_out)[0] if held_out is not None else pd.DataFrame()
    frame["test_recall"] = _last(test, frame.index)
    frame["gap"] = frame["train_recall"] - frame["test_recall"]
    frame["grad_norm_early"], frame["grad_norm_late"] = _gradient_norms(trace, frame.index)
    rows = trace.classifier
    frame["row_norm"] = rows.sort_values("step").groupby("class_id")["row_norm"].last().reindex(frame.index)
    return frame


def _last(curves: pd.DataFrame, classes: pd.Index[int]) -> pd.Series[float]:
    if curves.empty:
        return pd.Series(float("nan"), index=classes)
    return curves.iloc[-1].reindex(classes)


def _gradient_norms(trace: Trace, classes: pd.Index[int]) -> tuple[pd.Series[float], pd.Series[float]]:
    rows = trace.class_gradients
    rows = rows[rows["parameter"] == "*"]
    steps = sorted(rows["step"].unique())
    size = max(1, round(TENTH * len(steps)))

    def mean(chosen: list[int]) -> pd.Series[float]:
        return rows[rows["step"].isin(chosen)].groupby("class_id")["grad_norm"].mean().reindex(classes)

    return mean(steps[:size]), mean(steps[-size:])
