"""imbdyn show: what happened in runs, class by class."""

from __future__ import annotations

import click

from imbdyn.cli._errors import damage_told
from imbdyn.cli._report import print_report
from imbdyn.cli._runs import open_runs


@click.command("show")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def command(runs: tuple[str, ...], as_json: bool) -> None:
    """Print what each class did in the traces RUN..., and what they say of the three claims.

    RUN is a trace, a folder of traces, which stands for all of them, the URI of one, or a pattern such as "runs/*". The
    three runs of an experiment are compared with each other. Where a trace is damaged, the rest is shown, and the exit
    code is 1.
    """
    traces = open_runs(runs)
    with damage_told() as damage:
        print_report(traces, as_json=as_json)
    if damage:
        raise click.exceptions.Exit(1)
