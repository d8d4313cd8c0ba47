"""Loss and accuracy over all samples: what one sees without looking at classes."""

from __future__ import annotations

import pandas as pd

from imbdyn.report.figures.chart import Axis, Lines, NothingToDrawError, Series
from imbdyn.report.figures.curves import EPOCHS, STEPS
from imbdyn.report.figures.figure import Choices, Figure
from imbdyn.report.figures.source import Source

_AXES = {
    "accuracy": Axis("accuracy", "share", lower=0.0, upper=1.0),
    "loss": Axis("mean cross-entropy", "nats", log=True),
}
_COLUMNS = {"accuracy": {"accuracy": 5, "balanced_accuracy": 3}, "loss": {"loss": 5}}


def choices(source: Source) -> Choices:  # noqa: ARG001
    """Offer accuracy and loss."""
    return {"measure": list(_AXES)}


def draw(source: Source, measure: str = "accuracy") -> Lines:
    """Return the overall curves of the training data and of held-out data."""
    series = []
    x = STEPS
    for split, dashed in zip(source.evaluations[:2], (False, True), strict=False):
        rows = source.read("steps", ["step", "epoch", "count", *_COLUMNS[measure]], split=split)
        rows, x = _by_epoch(rows, split, list(_COLUMNS[measure]))
        for column, colour in _COLUMNS[measure].items():
            values = rows.dropna(subset=[column])
            if len(values):
                label = f"{column.replace('_', ' ')}, {'held out' if dashed else 'train'}"
                xs, ys = (values[name].to_numpy(dtype=float) for name in ("x", column))
                series.append(Series(label, label, xs, ys, family="all classes", colour=colour, dashed=dashed))
    if not series:
        raise NothingToDrawError("The trace has no loss and no accuracy.")
    return Lines(x, _AXES[measure], tuple(series))


def _by_epoch(rows: pd.DataFrame, split: str, columns: list[str]) -> tuple[pd.DataFrame, Axis]:
    if rows["epoch"].isna().any():
        return rows.rename(columns={"step": "x"}), STEPS
    if split != "train":
        last = rows["step"] == rows.groupby("epoch")["step"].transform("max")
        return rows[last].rename(columns={"epoch": "x"}), EPOCHS
    rows = rows[rows["count"] > 0]
    weights = rows.groupby("epoch")["count"].sum()
    means = {c: (rows[c] * rows["count"]).groupby(rows["epoch"]).sum() / weights for c in columns}
    return pd.DataFrame(means).rename_axis("x").reset_index(), EPOCHS


FIGURE = Figure(
    "progress",
    "What a look at the whole shows",
    "Accuracy over all samples and balanced accuracy (the mean of the classes' recall), or the loss. Accuracy hides "
    "what happens to classes with few samples.",
    draw,
    choices,
)
