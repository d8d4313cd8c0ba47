"""Cosines between the gradients of two classes: who is in conflict with whom, and when."""

from __future__ import annotations

import numpy as np
import pandas as pd

from imbdyn.report.figures._gradients import parameters
from imbdyn.report.figures.chart import Floats, Matrix, NothingToDrawError
from imbdyn.report.figures.figure import Choices, Figure
from imbdyn.report.figures.source import Source

#: A training is cut into at most so many moments.
_FRAMES = 20

#: Of more classes, those with the fewest and with the most training samples are shown, half each.
_MOST_CLASSES = 50


def choices(source: Source) -> Choices:
    """Offer the parameters whose pairs are in the trace."""
    return {"parameter": parameters(source, "class_gradient_pairs")}


def draw(source: Source, parameter: str = "*") -> Matrix:
    """Return the mean cosine of each two classes in each moment of the training."""
    stride = source.stride("class_gradient_pairs")
    steps = source.sampled_steps[::stride]
    if not steps:
        raise NothingToDrawError("The trace has no pairs of class gradients: no step was sampled.")
    classes, notes = _shown(source)
    if stride > 1:
        notes.append(f"Every {stride}th of {len(source.sampled_steps):,} sampled steps is read.")
    rows = source.read(
        "class_gradient_pairs",
        ["step", "class_a", "class_b", "grad_cos"],
        steps=steps if stride > 1 else None,
        parameter=parameter,
    ).dropna()
    place = pd.Series(range(len(classes)), index=classes)
    rows = rows[rows["class_a"].isin(classes) & rows["class_b"].isin(classes)]
    if not len(rows):
        raise NothingToDrawError("The trace has no pairs of class gradients.")
    moments = [moment for moment in np.array_split(np.asarray(steps), min(_FRAMES, len(steps))) if len(moment)]
    frame = np.searchsorted([moment[0] for moment in moments], rows["step"].to_numpy(), side="right") - 1
    first, second = (place[rows[column]].to_numpy() for column in ("class_a", "class_b"))
    values, counts = _means((len(moments), len(classes)), frame, first, second, rows["grad_cos"].to_numpy(dtype=float))
    return Matrix(
        "cos(G_a, G_b)",
        tuple(source.names[c] for c in classes),
        tuple(source.colour(c) for c in classes),
        tuple(_named(moment) for moment in moments),
        values,
        counts,
        tuple(notes),
    )


def _shown(source: Source) -> tuple[list[int], list[str]]:
    """Return the classes: the rare ones last, those with the most samples first."""
    order = sorted(range(len(source.counts)), key=lambda c: (c in source.rare, -source.counts[c], c))
    if len(order) <= _MOST_CLASSES:
        return order, []
    half = _MOST_CLASSES // 2
    note = f"Of {len(order):,} classes the {half} with the most and the {half} with the fewest samples are shown."
    return order[:half] + order[-half:], [note]


def _means(
    shape: tuple[int, int], frame: np.ndarray, first: np.ndarray, second: np.ndarray, cos: Floats
) -> tuple[Floats, np.ndarray]:
    """Return means and counts [F, K, K] of the cosines, symmetric, 1 on the diagonal."""
    frames, classes = shape
    sums, counts = np.zeros((frames, classes, classes)), np.zeros((frames, classes, classes), dtype=np.int64)
    for a, b in ((first, second), (second, first)):
        np.add.at(sums, (frame, a, b), cos)
        np.add.at(counts, (frame, a, b), 1)
    values = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return values, counts


def _named(moment: np.ndarray) -> str:
    first, last = int(moment[0]), int(moment[-1])
    if len(moment) == 1:
        return f"step {first:,}"
    return f"steps {first:,} to {last:,} ({len(moment)} sampled)"


FIGURE = Figure(
    "gradient_cosines",
    "Who is in conflict",
    "The cosine between the gradients of two classes, rare classes last: below 0 a step for the one undoes the other "
    "(Yu et al. 2020). A cell is the mean over the sampled steps of a moment in which both were present.",
    draw,
    choices,
)
