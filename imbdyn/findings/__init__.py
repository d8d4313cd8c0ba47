"""The phenomena of imbalanced training, one file each, with definition, formula and source on top.

They read only traces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from imbdyn.findings.alike_when_balanced import alike_when_balanced
from imbdyn.findings.early_underfit import early_underfit
from imbdyn.findings.finding import Finding
from imbdyn.findings.groups import groups, is_balanced
from imbdyn.findings.late_overfit import late_overfit
from imbdyn.findings.per_class import per_class

if TYPE_CHECKING:
    import pandas as pd

    from imbdyn.trace import Trace

__all__ = [
    "Finding",
    "alike_when_balanced",
    "claims",
    "early_underfit",
    "findings",
    "groups",
    "is_balanced",
    "late_overfit",
    "per_class",
    "single",
]


def claims(traces: Mapping[str, Trace]) -> list[Finding]:
    """Judge the three claims on the runs of an experiment.

    Args:
        traces: the runs by name: "balanced", "imbalanced", "scarce".
    """
    balanced, imbalanced, scarce = traces["balanced"], traces["imbalanced"], traces["scarce"]
    return [
        alike_when_balanced(balanced, {"imbalanced": imbalanced, "scarce": scarce}),
        early_underfit(imbalanced, balanced),
        late_overfit(imbalanced, balanced, scarce),
    ]


def single(trace: Trace) -> list[Finding]:
    """Judge each claim on one run alone: a lag and an excess gap are then compared with none."""
    return [alike_when_balanced(trace), early_underfit(trace), late_overfit(trace)]


def findings(trace: Trace) -> pd.DataFrame:
    """Return what a single run says of the claims, a row each; the columns are the fields of `Finding`.

    A claim that the run cannot decide (a balanced run says nothing on imbalance) has its row too, with the reason in
    `sentence`.
    """
    import pandas as pd

    rows = [asdict(finding) for finding in single(trace)]
    return pd.DataFrame(rows, columns=[field.name for field in fields(Finding)])
