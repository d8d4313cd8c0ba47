"""What is told of a set of runs: the three runs of an experiment together, any other run alone."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from imbdyn.findings import Finding, claims, method, next_steps, phenomena, single
from imbdyn.findings.groups import class_counts, configuration
from imbdyn.report.names import run_names

if TYPE_CHECKING:
    from imbdyn.trace import Trace

_ROLES = ("balanced", "imbalanced", "scarce")


class Judged(NamedTuple):
    """Findings under one heading."""

    title: str
    findings: list[Finding]
    trace: Trace
    """Whose classes `by_class` of the findings is of."""


def judge(traces: Sequence[Trace]) -> list[tuple[str, list[Finding]]]:
    """Return titles with findings: the claims, what else is measured, and what may be tried next, if anything.

    Once for the three runs of each experiment, and for every other run. A run whose configuration names a method stands
    beside the others: next steps say what it changed.
    """
    return [(title, found) for title, found, _ in judged(traces)]


def judged(traces: Sequence[Trace]) -> list[Judged]:
    """Return what `judge` does, with the run that it is of."""
    experiments = _experiments(traces)
    places = {place for roles in experiments for place in roles.values()}
    names = run_names(traces)
    told = []
    for roles in experiments:
        runs = {name: traces[place] for name, place in roles.items()}
        beside = {name: runs[name] for name in ("balanced", "scarce")}
        tried = [trace for place, trace in enumerate(traces) if place not in roles.values() and method(trace)]
        only, name = len(experiments) == 1, names[roles["imbalanced"]]
        of_claims, of_run = ("these runs", "the imbalanced run") if only else (f"{name}, balanced and scarce", name)
        told += _told(of_claims, of_run, runs["imbalanced"], claims(runs), beside, tried)
    for place, trace in enumerate(traces):
        if place not in places:
            tried = [other for other in traces if other is not trace and method(other)]
            told += _told(f"{names[place]} alone", names[place], trace, single(trace), {}, tried)
    return told


def _experiments(traces: Sequence[Trace]) -> list[dict[str, int]]:
    """Return the experiments of which all three runs are there: the place of each run by its role.

    The balanced run of a study is trained once for all imbalances, and stands beside each of them. A run that names a
    method of its own beside its experiment is none of the three.
    """
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    shared: dict[str, list[int]] = defaultdict(list)
    for place, trace in enumerate(traces):
        config = configuration(trace)
        role = config.get("run")
        if isinstance(role, str) and role in _ROLES and "method" not in config:
            found[json.dumps(config.get("experiment"), sort_keys=True)][role].append(place)
            if role == "balanced":
                shared[_but_imbalance(trace)].append(place)
    for roles in found.values():
        if "balanced" not in roles and len(roles["imbalanced"]) == 1:
            roles["balanced"] = shared[_but_imbalance(traces[roles["imbalanced"][0]])]
    return [
        {role: roles[role][0] for role in _ROLES}
        for roles in found.values()
        if all(len(roles[role]) == 1 for role in _ROLES)
    ]


def _but_imbalance(trace: Trace) -> str:
    """Return what a run has in common with the balanced run of its experiment, whatever the imbalance ratio."""
    config = configuration(trace)
    experiment = config.get("experiment")
    kept = {k: v for k, v in experiment.items() if k != "imbalance"} if isinstance(experiment, dict) else experiment
    return json.dumps([kept, config.get("rare_classes"), max(class_counts(trace))], sort_keys=True)


def _told(
    of_claims: str,
    of_run: str,
    trace: Trace,
    found: list[Finding],
    beside: dict[str, Trace],
    tried: Sequence[Trace],
) -> list[Judged]:
    measured = phenomena(trace, beside)
    steps = next_steps(trace, [*found, *measured], beside, tried)
    told = [
        Judged(f"The three claims on {of_claims} (arXiv 2605.24908)", found, trace),
        Judged(f"What else {of_run} shows", measured, trace),
        Judged(f"What may be tried next, by {of_run}", steps, trace),
    ]
    return [one for one in told if one.findings]
