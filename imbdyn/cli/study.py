"""imbdyn study: many experiments, and what they say of the claims together."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imbdyn.cli._errors import UserError, damage_told, printable

if TYPE_CHECKING:
    from imbdyn.experiments.study.plan import Planned, Task
    from imbdyn.experiments.study.work import Outcome


@click.command("study")
@click.argument("study", metavar="[PRESET | STUDY.toml]", default="default")
@click.option(
    "--jobs", type=click.IntRange(min=1), help="Processes that train; 1: this one.  [default: one a core; on a GPU 1]"
)
@click.option("--scheduler", metavar="ADDRESS", help="Train on the workers of this dask scheduler instead.")
@click.option(
    "--out",
    default="runs",
    show_default=True,
    help="Folder of the traces, or the URI of one; they and results.parquet go to OUT/NAME.",
)
@click.option("--quiet", is_flag=True, help="No progress bar and no notes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def command(study: str, jobs: int | None, scheduler: str | None, out: str, quiet: bool, as_json: bool) -> None:
    """Train the three runs of many experiments and measure the claims over seeds and imbalance ratios.

    STUDY.toml is an experiment's file with a table [grid] of values that are taken in turn. What is finished is not run
    again, so the same command goes on after Ctrl-C or a crash. The default takes some minutes on two cores.
    """
    from imbdyn.experiments.errors import ExperimentError
    from imbdyn.experiments.study.grid import load_study
    from imbdyn.experiments.study.plan import plan_study, unfinished_tasks
    from imbdyn.experiments.study.results import results, write_results
    from imbdyn.experiments.study.summary import summarise
    from imbdyn.report import report_console, show_study, study_records
    from imbdyn.trace import TraceError
    from imbdyn.trace._store import below, filesystem_of, shown

    if jobs is not None and scheduler is not None:
        raise UserError("--jobs is for processes on this machine and --scheduler for a cluster: give one of them")
    folder: str | Path = out
    try:
        chosen = load_study(study)
        folder = below(out, chosen.name)
        filesystem_of(out)  # is it a place at all?
        planned = plan_study(chosen, folder)
        todo, finished = unfinished_tasks(planned)
        outcomes = _train(todo, finished, jobs, scheduler, quiet=quiet)
    except KeyboardInterrupt:
        click.echo(f"Interrupted. What is finished is kept in {shown(folder)}; the same command goes on.", err=True)
        raise click.exceptions.Exit(130) from None
    except (ExperimentError, TraceError, OSError) as error:
        raise UserError(str(error)) from error
    failures = _tell(todo, outcomes, quiet=quiet)
    try:
        with damage_told():
            table = results(_complete(planned, failures))
            place = write_results(table, folder)
    except (TraceError, OSError) as error:
        raise UserError(str(error)) from error
    summaries = summarise(table.to_pandas())
    if as_json:
        found = {"study": chosen.name, "results": place, "summary": study_records(summaries), "failures": failures}
        click.echo(json.dumps(found, indent=2, allow_nan=False))
    else:
        show_study(report_console(), chosen.name, summaries)
    if not quiet:
        click.echo(f"\nA row for each experiment and claim is in {place}.", err=True)
    if failures:
        raise click.exceptions.Exit(1)


def _train(todo: list[Task], finished: int, jobs: int | None, scheduler: str | None, *, quiet: bool) -> list[Outcome]:
    """Train what is to be trained, with one progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from imbdyn.experiments.study.cluster import run_on_cluster
    from imbdyn.experiments.study.local import default_jobs, run_here, run_locally

    if not quiet and finished:
        click.echo(f"{finished} of {finished + len(todo)} runs are finished and kept.", err=True)
    if not todo:
        return []
    console = Console(stderr=True)
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("runs, {task.fields[epochs]} epochs"),
        TimeElapsedColumn(),
        console=console,
        disable=quiet or not console.is_terminal,
    )
    with bars:
        bar = bars.add_task("study", total=len(todo), epochs=0)

        def progress(done: int, epochs: int) -> None:
            bars.update(bar, completed=done, epochs=epochs)

        if scheduler is not None:
            return run_on_cluster(todo, scheduler, progress)
        jobs = min(jobs or default_jobs(todo), len(todo))
        return run_here(todo, progress) if jobs == 1 else run_locally(todo, jobs, progress)


def _tell(todo: list[Task], outcomes: list[Outcome], *, quiet: bool) -> dict[str, str]:
    """Print what failed and what the instrument warned of, each once; return the failures by trace."""
    from imbdyn.trace._store import shown

    warned = Counter(warning for outcome in outcomes for warning in dict.fromkeys(outcome.warnings))
    for warning, runs in warned.items() if not quiet else ():
        click.echo(f"Warning in {runs} of {len(todo)} runs: {printable(warning)}", err=True)
    failures = {
        shown(task.out): outcome.failure
        for task, outcome in zip(todo, outcomes, strict=True)
        if outcome.failure is not None
    }
    for place, failure in failures.items():
        click.echo(f"Failed: {printable(place)}: {printable(failure)}", err=True)
    if failures:
        click.echo(f"{len(failures)} of {len(todo)} runs failed; the same command tries them again.", err=True)
    return failures


def _complete(planned: list[Planned], failures: dict[str, str]) -> list[Planned]:
    from imbdyn.trace._store import shown

    return [cell for cell in planned if not any(shown(task.out) in failures for task in cell.tasks.values())]
