"""Print a report of runs, for people or for programs: what `run` and `show` have in common."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from imbdyn.trace import Trace


def print_report(traces: Sequence[Trace], *, as_json: bool) -> None:
    """Print tables and claims, or the same as one JSON object, to standard output."""
    from imbdyn.report import judge, records, report_console, show_findings, show_runs

    traces = [trace.frozen() for trace in traces]
    if as_json:
        click.echo(json.dumps(records(traces), indent=2, allow_nan=False))
        return
    out = report_console()
    show_runs(out, traces)
    for title, found in judge(traces):
        show_findings(out, title, found)
