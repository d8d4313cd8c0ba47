"""imbdyn report: runs as one self-contained page."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imbdyn.cli._errors import UserError, damage_told, printable
from imbdyn.cli._runs import open_runs

if TYPE_CHECKING:
    from imbdyn.trace import Trace


@click.command("report")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File to write.  [default: NAME-report.html in this folder, with the name of the run, or of the folder of "
    "all]",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.option("--quiet", is_flag=True, help="No progress bar, and do not say what was written.")
def command(runs: tuple[str, ...], output: Path | None, force: bool, quiet: bool) -> None:
    """Write what the traces RUN... show as one page, which needs nothing but a browser.

    Several runs stand side by side, with their differences. RUN is a trace, a folder of traces, which stands for all of
    them, the URI of one, or a pattern such as "runs/*". Where a trace is damaged, the rest is shown, and the exit code
    is 1.
    """
    from imbdyn.report.html import page
    from imbdyn.trace import TraceError
    from imbdyn.trace._files import whole_file

    traces = open_runs(runs)
    output = _checked(output or _default_output(traces), force)
    try:
        with damage_told() as damage, _progress(quiet) as on_figure:
            text = page(traces, on_figure)
        with whole_file(output) as file:
            file.write(text.encode())
    except TraceError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror or error}") from error
    if not quiet:
        click.echo(f"{printable(str(output))}: {len(text.encode()) / 1e6:.1f} MB", err=True)
    if damage:
        raise click.exceptions.Exit(1)


def _default_output(traces: Sequence[Trace]) -> Path:
    paths = [os.path.abspath(trace.path) for trace in traces]  # noqa: PTH100  (links are not followed)
    name = os.path.basename(os.path.commonpath(paths))  # noqa: PTH119
    return Path(f"{name or 'runs'}-report.html")


def _checked(output: Path, force: bool) -> Path:
    if not output.parent.is_dir():
        raise UserError(f"{output.parent} is not a folder")
    if output.exists() and not output.is_file():
        raise UserError(f"{output} is not a regular file")
    if output.exists() and not force:
        raise UserError(f"{output} exists; --force replaces it")
    return output


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[], None]]:
    """Show a progress bar on standard error, if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from imbdyn.report.figures import FIGURES

    console = Console(stderr=True)
    columns = (TextColumn("report    "), BarColumn(), MofNCompleteColumn(), TextColumn("figures"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("report", total=len(FIGURES))
        yield lambda: bar.advance(task)
