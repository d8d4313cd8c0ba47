"""imbdyn export: one table of a trace in another format."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imbdyn.cli._errors import UserError, damage_told

if TYPE_CHECKING:
    import pyarrow.dataset as ds

    from imbdyn.trace import Trace

_FORMATS = ["csv", "jsonl", "arrow", "parquet", "tensorboard"]


@click.command("export")
@click.argument("run")
@click.option("--format", "format_", type=click.Choice(_FORMATS), required=True, help="Format of the file.")
@click.option("--table", default="classes", show_default=True, help="Table to export.")
@click.option("--since", type=int, metavar="STEP", help="Only rows of this step and later ones.")
@click.option("--columns", metavar="A,B,...", help="Only these columns, in this order.")
@click.option(
    "--where",
    metavar="CONDITION",
    help="Only rows for which this is true, such as 'class_id == 3 and loss > 0.5': columns, numbers, \"text\", "
    "== != < <= > >=, in (1, 2), is None, and, or, not.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, allow_dash=True),
    help="File to write, - for standard output.  [default: RUN-TABLE.FORMAT in this folder, or for tensorboard "
    "RUN-tensorboard/events.out.tfevents.TABLE]",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.option("--quiet", is_flag=True, help="No progress bar, and do not say what was written.")
def command(
    run: str,
    format_: str,
    table: str,
    since: int | None,
    columns: str | None,
    where: str | None,
    output: Path | None,
    force: bool,
    quiet: bool,
) -> None:
    """Write one table of the trace RUN to a file, in the order in which its rows were recorded.

    RUN is a folder, the URI of one, or a pattern such as "runs/*", whose traces are written as one, with a column run.
    Where the trace is damaged, the rest is written, and the exit code is 1.
    """
    import pyarrow as pa

    from imbdyn.trace import TraceError, open_trace
    from imbdyn.trace._files import whole_file
    from imbdyn.trace.export import export_table
    from imbdyn.trace.where import WhereError

    try:
        trace = open_trace(run)
        condition = _condition(trace, table, since, where)
        chosen = None if columns is None else [name.strip() for name in columns.split(",")]
        with damage_told() as damage, _progress(format_, quiet) as on_read:
            trace.reads(table, chosen)  # an unknown name is an error before any file is made
            if str(output) == "-":
                export_table(trace, table, format_, sys.stdout.buffer, chosen, condition, on_read)
            else:
                output = _checked(output or _default_output(trace, table, format_), force)
                with whole_file(output) as file:
                    rows = export_table(trace, table, format_, file, chosen, condition, on_read)
    except BrokenPipeError:
        raise  # the reader of our output went away: click ends quietly
    except (TraceError, WhereError, KeyError, OSError, pa.ArrowInvalid) as error:
        raise UserError(str(error)) from None
    except ModuleNotFoundError as error:
        raise UserError(f"--format {format_} needs the package {error.name}: pip install {error.name}") from None
    if not quiet and str(output) != "-":
        click.echo(f"{rows} rows of {table} in {output}", err=True)
    if damage:
        raise click.exceptions.Exit(1)


def _condition(trace: Trace, table: str, since: int | None, where: str | None) -> ds.Expression | None:
    import pyarrow.dataset as ds

    from imbdyn.trace.where import parse_where

    schema = trace.schema(table)
    conditions = [] if since is None else [ds.field("step") >= since]
    if where is not None:
        conditions.append(parse_where(where, schema))
    return None if not conditions else conditions[0] if len(conditions) == 1 else conditions[0] & conditions[1]


def _default_output(trace: Trace, table: str, format: str) -> Path:
    name = Path(trace.path).resolve().name
    if format != "tensorboard":
        return Path(f"{name}-{table}.{format}")
    folder = Path(f"{name}-tensorboard")  # TensorBoard takes a folder for a run, and looks for "tfevents" in the names
    folder.mkdir(exist_ok=True)
    return folder / f"events.out.tfevents.{table}"


def _checked(output: Path, force: bool) -> Path:
    if not output.parent.is_dir():
        raise UserError(f"{output.parent} is not a folder")
    if output.exists() and not output.is_file():
        raise UserError(f"{output} is not a regular file; -o - writes to standard output")
    if output.exists() and not force:
        raise UserError(f"{output} exists; --force replaces it")
    return output


@contextmanager
def _progress(label: str, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Show a progress bar on standard error, if that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TextColumn("row groups"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(label, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
