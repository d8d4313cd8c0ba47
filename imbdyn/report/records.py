"""The numbers of a report as plain dictionaries, for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pandas as pd

from imbdyn.findings import groups, per_class
from imbdyn.findings.recall import held_out_split, train_split
from imbdyn.report.judge import judge
from imbdyn.report.problems import told_problems

if TYPE_CHECKING:
    from imbdyn.trace import Trace


def records(traces: Sequence[Trace]) -> dict[str, Any]:
    """Return what a report shows, as JSON can hold it; what a trace does not have is None."""
    return {
        "runs": [_run(trace) for trace in traces],
        "findings": [{"on": title, **asdict(finding)} for title, found in judge(traces) for finding in found],
    }


def _run(trace: Trace) -> dict[str, Any]:
    classes = per_class(trace).reset_index().astype(object)
    return {
        "path": str(trace.path),
        "status": trace.run["status"],
        "train_split": train_split(trace),
        "test_split": held_out_split(trace),
        "rare_rule": groups(trace).rule,
        "overhead": trace.run["overhead"],
        "warned": told_problems(trace),
        "classes": [
            {column: None if pd.isna(value) else value for column, value in row.items()}
            for row in classes.to_dict("records")
        ],
    }
