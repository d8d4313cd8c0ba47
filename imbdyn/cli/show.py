"""imbdyn show: what happened in runs, class by class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imbdyn.cli._errors import UserError, damage_told
from imbdyn.cli._report import print_report

if TYPE_CHECKING:
    from imbdyn.trace import Trace


@click.command("show")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def command(runs: tuple[str, ...], as_json: bool) -> None:
    """Print what each class did in the traces RUN..., and what they say of the three claims.

    RUN is a trace, a folder of traces, which stands for all of them, the URI of one, or a pattern such as "runs/*". The
    three runs of an experiment are compared with each other. Where a trace is damaged, the rest is shown, and the exit
    code is 1.
    """
    from imbdyn.findings.groups import check_one_rank
    from imbdyn.trace import TraceError

    try:
        traces = [trace for given in runs for trace in _traces(given)]
        for trace in traces:
            check_one_rank(trace)
    except (TraceError, OSError) as error:
        raise UserError(str(error)) from error
    for trace in traces:
        missing = [key for key in ("class_names", "class_counts", "config", "overhead") if key not in trace.run]
        if missing:
            raise UserError(f"{trace.path} was not written by a Monitor: its run.json has no {', '.join(missing)}")
    with damage_told() as damage:
        print_report(traces, as_json=as_json)
    if damage:
        raise click.exceptions.Exit(1)


def _traces(place: str) -> list[Trace]:
    """Return the trace at a place, or those that it stands for."""
    from imbdyn.trace import TraceSet, open_trace

    path = Path(place)
    below = [] if (path / "run.json").exists() else sorted(record.parent for record in path.rglob("run.json"))
    opened = [open_trace(run) for run in below] or [open_trace(place)]
    return [trace for found in opened for trace in (found.runs.values() if isinstance(found, TraceSet) else [found])]
