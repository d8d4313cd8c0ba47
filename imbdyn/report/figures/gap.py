"""Recall of each class on the training data and on held-out data, each as last read."""

from __future__ import annotations

import numpy as np

from imbdyn.findings.intervals import wilson
from imbdyn.findings.recall import held_out_split, train_split
from imbdyn.report.figures._evaluated import last_values
from imbdyn.report.figures.chart import Axis, NothingToDrawError, Span, Spans
from imbdyn.report.figures.figure import Figure
from imbdyn.report.figures.source import Source

#: Of more classes, the ones with the most and with the fewest samples are shown, half each.
_MOST_ROWS = 40


def draw(source: Source) -> Spans:
    """Return a span from train to held-out recall for each class, the rarest first."""
    held_out = held_out_split(source.trace)
    if held_out is None:
        raise NothingToDrawError("The trace has no evaluation of held-out data.")
    train, test = last_values(source, "accuracy", train_split(source.trace)), last_values(source, "accuracy", held_out)
    both = train.add_suffix("_train").join(test.add_suffix("_test")).dropna(subset=["y_train", "y_test"])
    order = sorted(both.index, key=lambda c: (source.counts[c], c))
    notes = []
    if len(order) > _MOST_ROWS:
        notes.append(
            f"Of {len(order):,} classes the {_MOST_ROWS // 2} with the fewest and the {_MOST_ROWS // 2} with the most "
            "training samples are shown."
        )
        order = order[: _MOST_ROWS // 2] + order[-_MOST_ROWS // 2 :]
    spans = []
    for c in order:
        interval = wilson(float(both.loc[c, "y_test"]), int(both.loc[c, "count_test"]))
        spans.append(
            Span(
                f"class {c}",
                source.names[c],
                float(both.loc[c, "y_train"]),
                interval.value,
                interval.lower,
                interval.upper,
                family=source.family(c),
                colour=source.colour(c),
            )
        )
    if not spans or not np.isfinite([span.end for span in spans]).all():
        raise NothingToDrawError("No class has recall on both training and held-out data at the last epoch.")
    return Spans(Axis("recall", "share", lower=0.0, upper=1.0), "train", "held out", tuple(spans), tuple(notes))


FIGURE = Figure(
    "gap",
    "What was memorised",
    "Each class, the one with the fewest training samples on top: from its recall on the training data (open) to that "
    "on held-out data (filled, with Wilson's 95% interval), each as last read.",
    draw,
)
