"""Which claims a set of runs can be judged on: the three runs of an experiment together, any other run alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from imbdyn.findings import Finding, claims, single

if TYPE_CHECKING:
    from imbdyn.trace import Trace

_ROLES = ("balanced", "imbalanced", "scarce")


def judge(traces: Sequence[Trace]) -> list[tuple[str, list[Finding]]]:
    """Return titles with findings: one for the three runs of one experiment, else one for every run."""
    roles = {str(config["run"]): trace for trace in traces if "run" in (config := _config(trace))}
    experiments = [_config(trace).get("experiment") for trace in traces]
    if len(traces) == len(_ROLES) and set(roles) == set(_ROLES) and experiments.count(experiments[0]) == len(traces):
        return [("The three claims on these runs (arXiv 2605.24908)", claims(roles))]
    return [(f"The three claims on {trace.path.name} alone (arXiv 2605.24908)", single(trace)) for trace in traces]


def _config(trace: Trace) -> dict[str, object]:
    config = trace.run["config"]
    return config if isinstance(config, dict) else {}
