"""imbdyn show: what happened in runs, class by class, or happens."""

from __future__ import annotations

import click

from imbdyn.cli._errors import damage_told
from imbdyn.cli._report import follow_runs, print_report
from imbdyn.cli._runs import LiveRuns, open_runs


@click.command("show")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--follow", is_flag=True, help="Show runs while they go on, until all have ended.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables; with --follow one object a line.")
def command(runs: tuple[str, ...], follow: bool, as_json: bool) -> None:
    """Print what each class did in the traces RUN..., and what they say of the three claims.

    RUN is a trace, a folder of traces, which stands for all of them, the URI of one, or a pattern such as "runs/*". The
    three runs of an experiment are compared with each other. Where a trace is damaged, the rest is shown, and the exit
    code is 1.

    With --follow, runs that have not begun are waited for. A terminal is drawn again as they go; elsewhere, and with
    --json, they are printed after each epoch. When all have ended, all is printed as without it. Ctrl-C ends it with
    exit code 130. A run whose process was killed is given up: its exit code is 1.
    """
    from imbdyn.trace._store import shown

    with damage_told() as damage:
        if follow:
            abandoned = follow_runs(LiveRuns(runs), " ".join(map(shown, runs)), as_json=as_json)
        else:
            abandoned = False
            print_report(open_runs(runs), as_json=as_json)
    if damage or abandoned:
        raise click.exceptions.Exit(1)
