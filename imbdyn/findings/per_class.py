"""What a trace says of each class, and of groups of them: the numbers that `imbdyn show` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from imbdyn.findings.groups import class_counts, class_names, groups
from imbdyn.findings.recall import epoch_learned, held_out_split, recall_curves, train_split
from imbdyn.findings.rows import network_gradients

if TYPE_CHECKING:
    from imbdyn.trace import Trace

#: Gradient norms and shares are averaged over this share of the sampled steps, at the start and at the end.
TENTH = 0.1


def per_class(trace: Trace) -> pd.DataFrame:
    """Return a row per class, indexed by class_id; what the trace does not have is NaN (or NA).

    Columns: `name`; `rare` (bool); `count` (training samples); `epoch_learned` (first epoch with at least 0.5 recall on
    the training data, NA if never); `train_recall` and `test_recall` at the last epoch of each; `gap`, their difference
    at the last epoch that has both; `grad_norm_early` and `grad_norm_late` (mean of ||G_c|| of the whole network over
    the first and the last tenth of the sampled steps, of those that had samples of the class); `row_norm` (of the
    classifier, the last one read); `grad_share_early` and `grad_share_late` (as the norms, of <G_c, g> / ||g||^2).
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
    test = recall_curves(trace, held_out)[0] if held_out is not None else train.iloc[:0]
    frame["test_recall"] = _last(test, frame.index)
    both = train.index.intersection(test.index)
    frame["gap"] = _last(train.loc[both], frame.index) - _last(test.loc[both], frame.index)
    frame["grad_norm_early"], frame["grad_norm_late"] = _tenths(_by_step(trace)["grad_norm"], frame.index)
    rows = trace.classifier
    frame["row_norm"] = rows.sort_values("step").groupby("class_id")["row_norm"].last().reindex(frame.index)
    frame["grad_share_early"], frame["grad_share_late"] = _tenths(gradient_shares(trace), frame.index)
    return frame


def per_group(trace: Trace, members: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """Return the columns of `per_class` for groups of classes, a row each, indexed as `members`.

    Shares are of the group: summed over its classes in every step. The other numbers are means over the classes, NA if
    one has none; `rare` is whether all are; `name` is the key.
    """
    of_classes = per_class(trace)
    numbers = of_classes.drop(columns=["name", "rare"]).astype("Float64")
    means = [numbers.loc[list(classes)].mean(skipna=False) for classes in members.values()]
    frame = pd.DataFrame(means, index=pd.Index(members, name="group"), columns=numbers.columns)
    frame.insert(0, "name", list(members))
    frame.insert(1, "rare", [bool(of_classes["rare"][list(classes)].all()) for classes in members.values()])
    shares = group_shares(gradient_shares(trace), members)
    frame["grad_share_early"], frame["grad_share_late"] = _tenths(shares, frame.index)
    return frame


def gradient_shares(trace: Trace) -> pd.DataFrame:
    """Return <G_c, g> / ||g||^2 of the whole network by sampled step (rows) and class (columns).

    It is NaN where a step has no sample of a class.
    """
    return _by_step(trace)["grad_share"]


def group_shares(shares: pd.DataFrame, members: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """Return the sum over the classes of each group (columns) of shares by step (rows) and class (columns).

    A class without samples in a step has no part in it: its share is exactly 0. A step without any share, whose
    gradient was 0, is NaN. A group whose classes were never seen is left out.
    """
    seen = {name: [c for c in classes if c in shares] for name, classes in members.items()}
    sums = {name: shares[classes].sum(axis=1) for name, classes in seen.items() if classes}
    return pd.DataFrame(sums, index=shares.index).where(shares.notna().any(axis=1))


def by_step_and_class(gradients: pd.DataFrame, *columns: str) -> dict[str, pd.DataFrame]:
    """Return columns of one parameter's rows of `class_gradients`, each by step (rows) and class (columns)."""
    values = gradients.groupby(["step", "class_id"])[list(columns)].mean()
    return {column: values[column].unstack() for column in columns}


def _by_step(trace: Trace) -> dict[str, pd.DataFrame]:
    return trace.kept(
        "class gradients by step", lambda: by_step_and_class(network_gradients(trace), "grad_norm", "grad_share")
    )


def _last(curves: pd.DataFrame, classes: pd.Index[int]) -> pd.Series[float]:
    if curves.empty:
        return pd.Series(float("nan"), index=classes)
    return curves.iloc[-1].reindex(classes)


def _tenths(by_step: pd.DataFrame, columns: pd.Index) -> tuple[pd.Series[float], pd.Series[float]]:
    """Return the means over the first and over the last tenth of the steps, of those that have a value."""
    size = max(1, round(TENTH * len(by_step)))
    values = by_step.reindex(columns=columns).astype(np.float64)
    return values.iloc[:size].mean(), values.iloc[-size:].mean()
