"""From rows of a table to the series of a chart: a curve for each class, or bands of groups where there are many."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from imbdyn.report.figures.chart import Axis, Floats, Lines, NothingToDrawError, Series
from imbdyn.report.figures.palette import LIGHT
from imbdyn.report.figures.source import Source
from imbdyn.report.figures.thinning import MOST_POINTS, thinned

EPOCHS, STEPS = Axis("epoch", whole=True), Axis("optimizer step", whole=True)

#: A band has at most so many points.
_BAND_POINTS = 150

#: A run with fewer epochs is shown by step.
_ENOUGH_EPOCHS = 3


def class_lines(
    source: Source,
    rows: pd.DataFrame,
    x: Axis,
    y: Axis,
    *,
    levels: tuple[tuple[float, str], ...] = (),
    notes: tuple[str, ...] = (),
) -> Lines:
    """Return a chart of rows with columns `x`, `class_id` and `y`, of which there is one for each x and class.

    Raises: NothingToDrawError if there is none with a value.
    """
    rows, left_out = _drawable(rows, y)
    if source.has_many_classes:
        series, note = _bands(source, rows), _POOLED.format(x=x.label)
    else:
        series, note = _curves(source, rows)
    return Lines(x, y, tuple(series), levels, tuple(n for n in (note, *left_out, *notes) if n))


def plain_lines(
    curves: Sequence[tuple[str, pd.DataFrame]], x: Axis, y: Axis, *, family: str = "", notes: tuple[str, ...] = ()
) -> Lines:
    """Return a chart of curves that are no classes': label, and rows with columns `x` and `y`."""
    drawn, left_out, most = [], set(), 0
    for label, rows in curves:
        kept, dropped = _drawable(rows, y, may_be_empty=True)
        left_out.update(dropped)
        if len(kept):
            most = max(most, len(kept))
            drawn.append((label, *_points(kept)))
    if not drawn:
        raise NothingToDrawError(f"The trace has no value of {y.label}.")
    series = [
        Series(label, label, xs, ys, family=family, colour=position, dashed=position >= len(LIGHT))
        for position, (label, xs, ys) in enumerate(drawn)
    ]
    return Lines(x, y, tuple(series), notes=tuple(n for n in (_thinning(most), *sorted(left_out), *notes) if n))


def by_epoch_or_step(source: Source) -> list[str]:
    """Return the ways in which sampled steps can be shown, the better one first."""
    epochs = source.epochs
    return ["epochs", "steps"] if len(epochs) and epochs.nunique() >= _ENOUGH_EPOCHS else ["steps"]


def over_time(source: Source, rows: pd.DataFrame, over: str, keys: Sequence[str]) -> tuple[pd.DataFrame, Axis]:
    """Return rows with columns `step`, `y` and `keys` as rows with `x`, `y` and `keys`: by step, or epoch means.

    The mean is over the sampled steps of the epoch that have a value.
    """
    if over == "steps":
        return rows.rename(columns={"step": "x"}), STEPS
    epoch = rows["step"].map(source.epochs)
    means = rows.assign(x=epoch).dropna(subset=["x"]).groupby(["x", *keys], sort=True)["y"].mean()
    return means.reset_index(), EPOCHS


def _drawable(rows: pd.DataFrame, y: Axis, *, may_be_empty: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """Leave out what no axis can show, and say so."""
    rows = rows.dropna(subset=["y"])
    values = rows["y"].to_numpy(dtype=float)
    infinite = ~np.isfinite(values)
    below = (values <= 0) & ~infinite if y.log else np.zeros(len(rows), dtype=bool)
    notes = []
    if infinite.any():
        notes.append(f"{infinite.sum():,} infinite values are not drawn.")
    if below.any():
        notes.append(f"{below.sum():,} values of 0 or below are not drawn: the axis is logarithmic.")
    rows = rows[~(infinite | below)]
    if not len(rows) and not may_be_empty:
        raise NothingToDrawError(f"The trace has no value of {y.label}.")
    return rows, notes


def _curves(source: Source, rows: pd.DataFrame) -> tuple[list[Series], str]:
    series, most = [], 0
    present = {int(class_id) for class_id in rows["class_id"].unique()}
    for class_id in sorted(present, key=lambda c: (c in source.rare, c)):  # what stands out is drawn on top
        mine = rows[rows["class_id"] == class_id].sort_values("x")
        most = max(most, len(mine))
        x, y = _points(mine)
        name = source.names[class_id]
        series.append(
            Series(f"class {class_id}", name, x, y, family=source.family(class_id), colour=source.colour(class_id))
        )
    return series, _thinning(most)


_POOLED = (
    "Lines are medians over the classes of a group, bands run from their 10% to their 90% quantile; "
    f"where there are more than {_BAND_POINTS} values of {{x}}, neighbouring ones are pooled."
)


def _bands(source: Source, rows: pd.DataFrame) -> list[Series]:
    values = np.unique(rows["x"].to_numpy(dtype=float))
    if len(values) > _BAND_POINTS:
        spans = np.array_split(values, _BAND_POINTS)
        starts = np.array([span[0] for span in spans])
        middles = np.array([span.mean() for span in spans])
        rows = rows.assign(x=middles[np.searchsorted(starts, rows["x"].to_numpy(dtype=float), side="right") - 1])
    series = []
    for group in reversed(source.shown_groups):  # the rarest on top
        mine = rows[rows["class_id"].isin(group.classes)]
        if not len(mine):
            continue
        quantiles = mine.groupby("x")["y"].quantile(np.array([0.1, 0.5, 0.9])).unstack()
        low, middle, high = (quantiles[q].to_numpy(dtype=float) for q in (0.1, 0.5, 0.9))
        at = quantiles.index.to_numpy(dtype=float)
        series.append(
            Series(
                f"group {group.key}",
                group.label,
                at,
                middle,
                family="groups of classes",
                colour=group.colour,
                lower=low,
                upper=high,
            )
        )
    return series


def _points(rows: pd.DataFrame) -> tuple[Floats, Floats]:
    x, y = rows["x"].to_numpy(dtype=float), rows["y"].to_numpy(dtype=float)
    drawn = thinned(y)
    return x[drawn], y[drawn]


def _thinning(most: int) -> str:
    if most <= MOST_POINTS:
        return ""
    return (
        f"At most {MOST_POINTS} of {most:,} readings a curve are drawn: the smallest and the largest of each of "
        f"{(MOST_POINTS - 2) // 2} spans, so no extreme is lost."
    )
