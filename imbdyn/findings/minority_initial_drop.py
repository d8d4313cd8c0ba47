"""Minority initial drop: in the first steps the loss of the rare classes rises, while that of the others falls.

Definition. L(t) is the loss of the rare classes' training samples, L(0) that of the untrained network. If L is above
L(0) from the first reading after the start on, the measure is max L(t) / L(0) over that time, until L first comes back
to L(0); else it is the first reading's ratio, at most 1. Above 1 the rare classes were worse off than untrained.

Read from evaluations of the training data, one of them before the first step: no sampling error, but a drop between two
of them is not seen. Without, from the windows of training from step 1 on, which are other samples each time: a maximum
of few samples is then too large on average.

Source: Francazi, Baity-Jesi, Lucchi 2023, arXiv 2207.00391. The ratio as a measure is ours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from imbdyn.findings.contrast import defined, finite
from imbdyn.findings.finding import Finding
from imbdyn.findings.group_loss import loss_readings
from imbdyn.findings.groups import groups, one_group
from imbdyn.findings.recall import TRAIN_EVAL
from imbdyn.findings.words import times

if TYPE_CHECKING:
    import pandas as pd

    from imbdyn.trace import Trace


def minority_initial_drop(trace: Trace) -> Finding:
    """Measure how far the loss of the rare classes rises above that of the untrained network."""
    group = groups(trace)
    found = Finding(
        name="minority_initial_drop",
        claim="In the first steps the loss of the rare classes rises above that of the untrained network.",
        unit="loss of the rare classes / their loss untrained",
        null=1.0,
        compared_with="the untrained network",
        effect="recall of the rare classes at the highest loss minus that of the untrained network",
    )
    missing = one_group(group)
    if missing is not None:
        return replace(found, sentence=missing)
    readings = loss_readings(trace, group, _split(trace))
    if len(readings) < 2 or not _is_untrained(readings):
        return replace(found, sentence='No loss of the untrained network: evaluate "train_eval" before the first step.')
    ratio = readings[["rare", "others"]] / readings[["rare", "others"]].iloc[0]
    peak, last = _peak_and_last(ratio["rare"])
    value = defined(ratio["rare"].iloc[peak])
    if value is None:
        return replace(found, sentence="The untrained network had no loss on the rare classes.")
    step, end = int(ratio.index[peak]), int(ratio.index[last])
    others = f"others {times(ratio['others'].iloc[peak])} times"
    until = f"until {end}" if last + 1 < len(ratio) else f"and was still above it at {end}, the last reading"
    windows = "" if _split(trace) == TRAIN_EVAL else " Read from training windows, of other samples each time."
    return replace(
        found,
        value=value,
        effect_size=defined(readings["rare_recall"].iloc[peak] - readings["rare_recall"].iloc[0]),
        steps=(int(ratio.index[0]), end) if last else None,
        by_class=_by_class(trace, int(ratio.index[0]), step),
        sentence=(
            f"The loss of rare classes rose to {times(value)} times its start at step {step} ({others}), {until}."
            if last
            else f"The loss of rare classes fell to {value:.2f} times its start by step {step} ({others})."
        )
        + windows,
    )


def steps_of_rise(trace: Trace) -> tuple[int, int] | None:
    """Return the steps from the start to the rare classes' highest loss; None where it did not rise at first."""
    group = groups(trace)
    if one_group(group) is not None:
        return None
    readings = loss_readings(trace, group, _split(trace))
    if len(readings) < 2 or not _is_untrained(readings):
        return None
    peak, last = _peak_and_last(readings["rare"] / readings["rare"].iloc[0])
    return (int(readings.index[0]), int(readings.index[peak])) if last else None


def _peak_and_last(ratio: pd.Series[float]) -> tuple[int, int]:
    """Return which reading is the highest of those above the start, and which their last; 1 and 0 if there are none."""
    above = (ratio.iloc[1:] > 1).to_numpy()
    last = len(above) if above.all() else int(above.argmin())
    return (1 + int(np.argmax(ratio.iloc[1 : last + 1])) if last else 1), last


def _split(trace: Trace) -> str:
    """Return where the loss is read: from evaluations if one came before the first step."""
    rows = trace.classes
    return TRAIN_EVAL if ((rows["split"] == TRAIN_EVAL) & (rows["step"] == 0)).any() else "train"


def _is_untrained(readings: pd.DataFrame) -> bool:
    """Whether the first reading is an evaluation before the first step, or the first step's batch alone."""
    step, since = readings.index[0], readings["since_step"].iloc[0]
    return bool(step == 0 or (step == 1 and since == 0))


def _by_class(trace: Trace, start: int, peak: int) -> dict[int, float]:
    rows = trace.classes
    rows = rows[rows["split"] == _split(trace)]
    loss = {step: rows[rows["step"] == step].set_index("class_id")["loss"] for step in (start, peak)}
    return finite(loss[peak] / loss[start].where(loss[start] > 0))
