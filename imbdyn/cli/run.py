"""imbdyn run: train the built-in experiment and show what each class did."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imbdyn.cli._errors import UserError
from imbdyn.cli._report import print_report

if TYPE_CHECKING:
    from imbdyn.experiments.data import SplitData
    from imbdyn.experiments.train import Run


@click.command("run")
@click.argument("experiment", metavar="[PRESET | CONFIG.toml]", default="default")
@click.option(
    "--out",
    default="runs",
    show_default=True,
    help="Folder of the traces, or the URI of one (s3://, gs://, hdfs://); "
    "they go to OUT/NAME-seedN/{balanced,imbalanced,scarce}.",
)
@click.option("--seed", type=int, help="Seed of the rare classes, samples and weights.  [default: the preset's]")
@click.option("--force", is_flag=True, help="Replace the traces that exist.")
@click.option("--resume", is_flag=True, help="Keep the runs that are finished, go on with the others.")
@click.option("--quiet", is_flag=True, help="No progress bars and no notes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def command(experiment: str, out: str, seed: int | None, force: bool, resume: bool, quiet: bool, as_json: bool) -> None:
    """Train a small network three times and measure what each class does to it.

    On balanced data, on imbalanced data, and, to tell imbalance from scarcity, on balanced data as scarce as the rare
    classes. CONFIG.toml overrides any value of a preset: data, profile of the imbalance, network, method, training.
    """
    from imbdyn.experiments.config import load_config
    from imbdyn.experiments.errors import ExperimentError
    from imbdyn.experiments.run import directory, plan, unfinished
    from imbdyn.trace import TraceError, open_trace
    from imbdyn.trace._store import below, shown

    if force and resume:
        raise UserError("--force replaces what --resume keeps: give one of them")
    try:
        config = load_config(experiment)
        if seed is not None:
            config = config.with_seed(seed)
        data = config.data.load(config.seed)
        runs, folder = plan(config, data), directory(out, config)
        todo = unfinished(runs, folder, resume=resume, force=force)
    except (ExperimentError, TraceError, OSError) as error:
        raise UserError(str(error)) from error

    if resume and not quiet:
        _note_resumed(runs, todo, folder)
    try:
        _train(todo, data, folder, force=force, resume=resume, quiet=quiet)
    except KeyboardInterrupt:
        _note_interrupted([below(folder, run.name) for run in runs])
        raise click.exceptions.Exit(130) from None
    except ExperimentError as error:
        raise UserError(str(error)) from error
    except OSError as error:  # the folder cannot be made or replaced; later failures are the Monitor's to survive
        reason = f"{error.filename} cannot be written: {error.strerror}" if error.strerror else str(error)
        raise UserError(reason) from error
    try:
        traces = [open_trace(below(folder, run.name)) for run in runs]
    except TraceError as error:
        raise UserError(str(error)) from error
    print_report(traces, as_json=as_json)
    if not quiet:
        click.echo(f"\nThe traces are in {shown(folder)}.", err=True)


def _train(runs: list[Run], data: SplitData, folder: str | Path, *, force: bool, resume: bool, quiet: bool) -> None:
    """Train the runs one after the other, with a progress bar each on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from imbdyn.experiments.train import epochs_done, train
    from imbdyn.trace._store import below

    console = Console(stderr=True)
    bars = Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs"),
        TimeElapsedColumn(),
        console=console,
        disable=quiet or not console.is_terminal,
    )
    with bars:
        for run in runs:
            task = bars.add_task(run.name, total=run.config.train.epochs)
            out = below(folder, run.name)
            if resume:
                bars.advance(task, epochs_done(run, out))
            train(run, data, out, force=force, resume=resume, on_epoch=partial(bars.advance, task))


def _note_resumed(runs: list[Run], todo: list[Run], folder: str | Path) -> None:
    from imbdyn.experiments.train import epochs_done
    from imbdyn.trace._store import below

    kept = [run.name for run in runs if run not in todo]
    done = {run.name: epochs_done(run, below(folder, run.name)) for run in todo}
    further = [f"{name} (after epoch {epochs})" for name, epochs in done.items() if epochs]
    again = [name for name, epochs in done.items() if not epochs]
    click.echo(
        f"Finished and kept: {', '.join(kept) or 'none'}. Going on: {', '.join(further) or 'none'}. From the start: "
        f"{', '.join(again) or 'none'}.",
        err=True,
    )


def _note_interrupted(places: list[str | Path]) -> None:
    from imbdyn.trace._store import below, exists, shown

    written = [shown(place) for place in places if exists(below(place, "run.json"))]
    click.echo(
        f"Interrupted. These traces can be read: {', '.join(written) or 'none'}. "
        "The same command with --resume does what is missing.",
        err=True,
    )
