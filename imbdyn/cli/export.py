"""imbdyn export: one table of a trace in another format."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from imbdyn.cli._errors import UserError

_FORMATS = ["csv", "jsonl", "arrow", "parquet"]


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--format", "format_", type=click.Choice(_FORMATS), required=True, help="Format of the file.")
@click.option("--table", default="classes", show_default=True, help="Table to export.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, allow_dash=True),
    help="File to write, - for standard output.  [default: RUN-TABLE.FORMAT in this folder]",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.option("--quiet", is_flag=True, help="Do not say what was written.")
def command(run: Path, format_: str, table: str, output: Path | None, force: bool, quiet: bool) -> None:
    """Write one table of the trace RUN to a file, in the order in which its rows were recorded."""
    import pyarrow as pa

    from imbdyn.trace import TraceError, open_trace
    from imbdyn.trace._files import whole_file
    from imbdyn.trace.export import export_table

    try:
        trace = open_trace(run)
        trace.dataset(table)  # an unknown table is an error before any file is made
        output = output or Path(f"{trace.path.resolve().name}-{table}.{format_}")
        if str(output) == "-":
            export_table(trace, table, format_, sys.stdout.buffer)
            return
        if not output.parent.is_dir():
            raise UserError(f"{output.parent} is not a folder")
        if output.exists() and not output.is_file():
            raise UserError(f"{output} is not a regular file; -o - writes to standard output")
        if output.exists() and not force:
            raise UserError(f"{output} exists; --force replaces it")
        with whole_file(output) as file:
            rows = export_table(trace, table, format_, file)
    except BrokenPipeError:
        raise  # the reader of our output went away: click ends quietly
    except (TraceError, KeyError, OSError, pa.ArrowInvalid) as error:
        raise UserError(str(error)) from None
    if not quiet:
        click.echo(f"{rows} rows of {table} in {output}", err=True)
