"""imbdyn show: what happened in runs, class by class."""

from __future__ import annotations

from pathlib import Path

import click

from imbdyn.cli._errors import UserError, damage_told
from imbdyn.cli._report import print_report


@click.command("show")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def command(runs: tuple[Path, ...], as_json: bool) -> None:
    """Print what each class did in the traces RUN..., and what they say of the three claims.

    A folder of runs stands for all of them. The three runs of an experiment are compared with each other. Where a trace
    is damaged, the rest is shown, and the exit code is 1.
    """
    from imbdyn.trace import TraceError, open_trace

    try:
        traces = [open_trace(run) for given in runs for run in _runs_in(given)]
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


def _runs_in(path: Path) -> list[Path]:
    """Return the runs below a folder that is none itself; `path` where there are none, for open_trace to report."""
    if (path / "run.json").exists():
        return [path]
    return sorted(record.parent for record in path.rglob("run.json")) or [path]
