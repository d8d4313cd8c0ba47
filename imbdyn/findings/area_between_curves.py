"""Area between the learning curves of the other and of the rare classes.

Definition. A_c is the mean over the epochs of class c's recall on the training data, the area under its learning curve.
The measure is mean_{c other} A_c - mean_{c rare} A_c: 0 if the groups are learned alike, 1 if the others are known from
the first epoch on and the rare classes never. It needs no threshold, as the lag to 50% recall does. What is counted are
epochs: in a run with fewer samples (the control for scarcity) an epoch has fewer steps.

Source: ours, for claim 2 of arXiv 2605.24908.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from imbdyn.findings.contrast import DELTA, contrast, finite
from imbdyn.findings.finding import Finding
from imbdyn.findings.groups import groups, one_group
from imbdyn.findings.recall import difference, epoch_ends, recall_curves, train_split
from imbdyn.findings.rows import longest_run
from imbdyn.findings.words import told_p

if TYPE_CHECKING:
    from imbdyn.trace import Trace


def area_between_curves(trace: Trace) -> Finding:
    """Measure how far the rare classes' recall lies below that of the others, over the run."""
    group = groups(trace)
    found = Finding(
        name="area_between_curves",
        claim="The recall of rare classes on the training data is below that of the others over the run.",
        unit="recall",
        null=0.0,
        compared_with="equal areas",
        effect=DELTA,
    )
    missing = one_group(group)
    if missing is not None:
        return replace(found, sentence=missing)
    split = train_split(trace)
    curves, _ = recall_curves(trace, split)
    by_class = finite(curves.mean())
    compared = contrast(by_class, group)
    ends = epoch_ends(trace, split)
    between = difference(curves, group.rare, group.others).rename(index=lambda epoch: ends[float(epoch)]).dropna()
    if compared is None or between.empty:
        return replace(found, sentence="No recall of rare and other classes by epoch: set monitor.epoch.")
    furthest = int(between.index[int(between.to_numpy().argmax())])
    return replace(
        found,
        value=float(between.mean()),
        p_value=compared.p_value,
        effect_size=compared.delta,
        steps=longest_run((between >= between[furthest] / 2) & (between > 0)),
        by_class=by_class,
        sentence=(
            f"Train recall over the run is {compared.rare:.2f} of rare and {compared.others:.2f} of other classes, "
            f"furthest apart at step {furthest}{told_p(compared.p_value)}."
        ),
    )
