"""What is told of a set of runs: the three runs of an experiment together, any other run alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from imbdyn.findings import Finding, claims, method, next_steps, phenomena, single
from imbdyn.findings.groups import configuration

if TYPE_CHECKING:
    from imbdyn.trace import Trace

_ROLES = ("balanced", "imbalanced", "scarce")


def judge(traces: Sequence[Trace]) -> list[tuple[str, list[Finding]]]:
    """Return titles with findings: the claims, what else is measured, and what may be tried next, if anything.

    Once for the three runs of one experiment, else once for every run. A run whose configuration names a method stands
    beside the others: next steps say what it changed.
    """
    tried = [trace for trace in traces if method(trace)]
    plain = [trace for trace in traces if not method(trace)]
    roles = {str(config["run"]): trace for trace in plain if "run" in (config := configuration(trace))}
    experiments = [configuration(trace).get("experiment") for trace in plain]
    told, alone = [], list(traces)
    if len(plain) == len(_ROLES) and set(roles) == set(_ROLES) and experiments.count(experiments[0]) == len(plain):
        beside = {name: roles[name] for name in ("balanced", "scarce")}
        told += _told("these runs", "the imbalanced run", roles["imbalanced"], claims(roles), beside, tried)
        alone = tried
    for trace in alone:
        others = [other for other in tried if other is not trace]
        told += _told(f"{trace.path.name} alone", trace.path.name, trace, single(trace), {}, others)
    return told


def _told(
    of_claims: str,
    of_run: str,
    trace: Trace,
    judged: list[Finding],
    beside: dict[str, Trace],
    tried: Sequence[Trace],
) -> list[tuple[str, list[Finding]]]:
    measured = phenomena(trace, beside)
    steps = next_steps(trace, [*judged, *measured], beside, tried)
    told = [
        (f"The three claims on {of_claims} (arXiv 2605.24908)", judged),
        (f"What else {of_run} shows", measured),
        (f"What may be tried next, by {of_run}", steps),
    ]
    return [(title, found) for title, found in told if found]
