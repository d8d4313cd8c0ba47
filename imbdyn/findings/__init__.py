"""The phenomena of imbalanced training, one file each, with definition, formula and source on top.

They read only traces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING

from imbdyn.findings.alike_when_balanced import alike_when_balanced
from imbdyn.findings.area_between_curves import area_between_curves
from imbdyn.findings.classifier_norms import classifier_norms
from imbdyn.findings.early_underfit import early_underfit
from imbdyn.findings.feature_drift import feature_drift
from imbdyn.findings.finding import Finding
from imbdyn.findings.first_order import first_order_rise
from imbdyn.findings.gradient_conflict import gradient_conflict
from imbdyn.findings.gradient_ratio import gradient_ratio
from imbdyn.findings.groups import groups, is_balanced
from imbdyn.findings.initial_guess import initial_guess
from imbdyn.findings.late_overfit import late_overfit
from imbdyn.findings.minority_collapse import minority_collapse
from imbdyn.findings.minority_initial_drop import minority_initial_drop
from imbdyn.findings.neural_collapse import nc1, nc2, nc3, nc4
from imbdyn.findings.next_steps import method, next_steps
from imbdyn.findings.noise_scale import noise_scale
from imbdyn.findings.per_class import per_class
from imbdyn.findings.row_motion import row_rotation, row_update_ratio
from imbdyn.findings.seli import seli_means, seli_rows

if TYPE_CHECKING:
    import pandas as pd

    from imbdyn.trace import Trace

__all__ = [
    "PHENOMENA",
    "Finding",
    "alike_when_balanced",
    "claims",
    "early_underfit",
    "findings",
    "groups",
    "is_balanced",
    "late_overfit",
    "method",
    "next_steps",
    "per_class",
    "phenomena",
    "single",
]

#: What is measured of a run beside the claims, in the order in which it is shown: what comes first in training first.
PHENOMENA = (
    initial_guess,
    minority_initial_drop,
    first_order_rise,
    area_between_curves,
    gradient_conflict,
    gradient_ratio,
    noise_scale,
    row_update_ratio,
    row_rotation,
    classifier_norms,
    minority_collapse,
    nc1,
    nc2,
    nc3,
    nc4,
    seli_rows,
    seli_means,
    feature_drift,
)


def claims(traces: Mapping[str, Trace]) -> list[Finding]:
    """Judge the three claims on the runs of an experiment.

    Args:
        traces: the runs by name: "balanced", "imbalanced", "scarce".
    """
    balanced, imbalanced, scarce = (traces[name].frozen() for name in ("balanced", "imbalanced", "scarce"))
    return [
        alike_when_balanced(balanced, {"imbalanced": imbalanced, "scarce": scarce}),
        early_underfit(imbalanced, balanced, scarce),
        late_overfit(imbalanced, balanced, scarce),
    ]


def single(trace: Trace) -> list[Finding]:
    """Judge each claim on one run alone: a lag and an excess gap are then compared with none."""
    trace = trace.frozen()
    return [alike_when_balanced(trace), early_underfit(trace), late_overfit(trace)]


def phenomena(trace: Trace, beside: Mapping[str, Trace] | None = None) -> list[Finding]:
    """Measure every phenomenon on a run, and the same number on the runs that stand `beside` it by name."""
    measured = _measured(trace)
    if not beside:
        return measured
    values = {name: [found.value for found in _measured(run)] for name, run in beside.items()}
    return [
        replace(found, beside={name: value[place] for name, value in values.items()})
        for place, found in enumerate(measured)
    ]


def _measured(trace: Trace) -> list[Finding]:
    trace = trace.frozen()
    return [measure(trace) for measure in PHENOMENA]


def findings(trace: Trace, tried: Sequence[Trace] = ()) -> pd.DataFrame:
    """Return what a single run says of the claims and phenomena, and what to try next: a row each.

    The columns are the fields of `Finding`. What the run cannot say (a balanced run says nothing on imbalance) has its
    row too, with the reason in `sentence`. A next step has a row only where the run speaks for it; of runs that `tried`
    one (see `next_steps`), it says what it changed.
    """
    import pandas as pd

    trace = trace.frozen()
    found = [*single(trace), *phenomena(trace)]
    rows = [asdict(finding) for finding in (*found, *next_steps(trace, found, tried=tried))]
    return pd.DataFrame(rows, columns=[field.name for field in fields(Finding)])
