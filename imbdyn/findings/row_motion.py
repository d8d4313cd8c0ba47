"""How the classifier's row of each class moves in a step: update ratio and rotation.

Definition. Update ratio ||dw_c|| / ||w_c|| and rotation, the angle between w_c before and after the step, each the mean
over the sampled steps. The measures are the means of the rare classes.

In equilibrium weight decay and rotation balance at a known angle, but only of scale-invariant weights; a row of the
classifier is not one, so the other classes are what it is compared with.

Source: the update ratio as in CS231n's notes (of updates, not of raw gradients); rotation: Kosson, Messmer, Jaggi 2024,
arXiv 2305.17212.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from imbdyn.findings.contrast import DELTA, contrast, finite
from imbdyn.findings.finding import Finding
from imbdyn.findings.groups import groups
from imbdyn.findings.rows import span
from imbdyn.findings.words import told_p

if TYPE_CHECKING:
    import pandas as pd

    from imbdyn.trace import Trace


def row_update_ratio(trace: Trace) -> Finding:
    """Measure how far the rare classes' rows move in a step, by their length."""
    rows = _rows(trace)
    norm = rows["row_norm"].where(rows["row_norm"] > 0)
    return _motion(
        trace, rows, rows["row_update_norm"] / norm, "row_update_ratio", "||dw|| / ||w||", "move by", "{:.2g}"
    )


def row_rotation(trace: Trace) -> Finding:
    """Measure how far the rare classes' rows turn in a step."""
    rows = _rows(trace)
    return _motion(trace, rows, rows["row_rotation"], "row_rotation", "rad", "turn by", "{:.2g} rad")


def _rows(trace: Trace) -> pd.DataFrame:
    rows = trace.classifier
    return rows[rows["split"] == "train"]


def _motion(
    trace: Trace, rows: pd.DataFrame, motion: pd.Series[float], name: str, unit: str, verb: str, form: str
) -> Finding:
    group = groups(trace)
    found = Finding(
        name=name,
        claim=f"The classifier's rows of rare classes {verb} as much in a step as those of others.",
        unit=unit,
        compared_with="the other classes",
        effect=DELTA,
    )
    by_class = finite(motion.groupby(rows["class_id"]).mean())
    compared = contrast(by_class, group)
    if not by_class:
        return replace(found, sentence="No sampled step has the motion of the classifier's rows.")
    if compared is None:
        low, high = form.format(min(by_class.values())), form.format(max(by_class.values()))
        sentence = f"No two groups to compare; rows {verb} {low} to {high} a step."
        return replace(found, by_class=by_class, steps=span(rows["step"]), sentence=sentence)
    rare, others = form.format(compared.rare), form.format(compared.others)
    return replace(
        found,
        value=compared.rare,
        p_value=compared.p_value,
        effect_size=compared.delta,
        steps=span(rows["step"]),
        by_class=by_class,
        sentence=f"Rows of rare classes {verb} {rare} a step, those of others by {others}{told_p(compared.p_value)}.",
    )
