"""Positive over negative logit gradient: do a class's own samples pull its logit up as much as others push it down?

Definition. g_c = sum_{y = c} (1 - p_c) / sum_{y != c} p_c, both sums over all training samples whose logits were read.
Below 1 the class was pushed down on balance. The measure is that of the rare classes together. The difference of the
two sums is -N dL/db_c, so that g_c = 1 where the bias is stationary, which is the null.

The difference between the groups is tested on log g_c.

Source: Tan et al. 2021, arXiv 2012.08548 (Equalization Loss v2), here for softmax: theirs is for sigmoids, weighted.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from imbdyn.findings.contrast import DELTA, contrast, defined, finite
from imbdyn.findings.finding import Finding
from imbdyn.findings.groups import groups
from imbdyn.findings.rows import span
from imbdyn.findings.words import told_p

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imbdyn.trace import Trace


def gradient_ratio(trace: Trace) -> Finding:
    """Measure what the logits of the rare classes got in positive over negative gradient."""
    group = groups(trace)
    found = Finding(
        name="gradient_ratio",
        claim="The logits of the rare classes are pushed down more than their own samples pull them up.",
        unit="positive / negative logit gradient of the rare classes",
        null=1.0,
        compared_with="a stationary bias",
        effect=DELTA,
    )
    rows = trace.classes
    rows = rows[rows["split"] == "train"]
    sums = rows.groupby("class_id")[["positive_grad", "negative_grad"]].sum()
    ratio = sums["positive_grad"] / sums["negative_grad"].where(sums["negative_grad"] > 0)
    by_class = finite(ratio)
    if not by_class:
        return replace(found, sentence="No logit gradients: no training window was read.")
    value = _together(rows, group.rare)
    early = _together(rows[rows["epoch"] == rows["epoch"].min()], group.rare)
    others = _together(rows, group.others)
    compared = contrast({c: np.log(ratio) for c, ratio in by_class.items() if ratio > 0}, group)
    low, high = min(by_class.values()), max(by_class.values())
    if defined(value) is None:
        why = "No rare classes" if not group.rare else "No rare class's logit was pushed down"
        sentence = f"{why}; the logits of all got {low:.2f} to {high:.2f} of positive per negative gradient."
    else:
        in_first = "" if defined(early) is None else f", {early:.2f} in the first epoch"
        beside = "" if defined(others) is None else f", the others {others:.2f}"
        sentence = (
            f"Rare classes' logits got {value:.2f} of positive per negative gradient{in_first}{beside}"
            f"{told_p(None if compared is None else compared.p_value)}."
        )
    return replace(
        found,
        value=defined(value),
        p_value=None if compared is None else compared.p_value,
        effect_size=None if compared is None else compared.delta,
        steps=span(rows["step"]),
        by_class=by_class,
        sentence=sentence,
    )


def _together(rows: pd.DataFrame, classes: Sequence[int]) -> float:
    """Return the ratio of the sums over some classes, NaN without a negative gradient."""
    chosen = rows[rows["class_id"].isin(classes)]
    negative = chosen["negative_grad"].sum()
    return float(chosen["positive_grad"].sum() / negative) if negative > 0 else float("nan")
