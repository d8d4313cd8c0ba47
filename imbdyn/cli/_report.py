"""Print a report of runs, for people or for programs: what `run` and `show` have in common."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from imbdyn.cli._errors import UserError, printable

if TYPE_CHECKING:
    from imbdyn.cli._runs import LiveRuns
    from imbdyn.trace import LiveTrace, Trace


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


def follow_runs(runs: LiveRuns, places: str, *, as_json: bool) -> bool:
    """Show runs while they go on, then print their report; tell whether any was given up.

    Args:
        runs: the runs.
        places: what the user calls them.
        as_json: whether each time one JSON object is printed in a line.
    """
    from imbdyn.report import records, report_console
    from imbdyn.report.follow import drawn, follow, show_blocks, told
    from imbdyn.trace import TraceError

    def print_line(found: Sequence[LiveTrace], _: Sequence[LiveTrace] = ()) -> None:
        click.echo(json.dumps(records(found), allow_nan=False))

    def print_blocks(_: Sequence[LiveTrace], further: Sequence[LiveTrace]) -> None:
        show_blocks(out, further)

    out = report_console()
    try:
        if out.file.isatty() and not out.is_dumb_terminal and not as_json:
            with drawn(out, places) as view:
                ended = follow(runs.look, view)
        else:
            if not runs.look():
                click.echo(f"Waiting for {printable(places)}", err=True)
            ended = follow(runs.look, told(print_line if as_json else print_blocks))
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None
    except (TraceError, OSError) as error:
        raise UserError(str(error)) from error
    if as_json:
        print_line(ended)
    else:
        print_report(ended, as_json=False)
    abandoned = [run for run in ended if run.run["status"] == "running"]
    for run in abandoned:
        click.echo(
            f"Warning: {printable(str(run.path))} seems to be written no more, though it has not ended: its process "
            "was killed, or is silent",
            err=True,
        )
    return bool(abandoned)
