"""imbdyn compact: merge the small parts of a trace."""

from __future__ import annotations

import click

from imbdyn.cli._errors import UserError


@click.command("compact")
@click.argument("run")
@click.option("--quiet", is_flag=True, help="Do not say what was merged.")
def command(run: str, quiet: bool) -> None:
    """Merge the small parts of the trace RUN, whose run has ended.

    A crash in the middle loses and doubles nothing. Do not read the tables with other programs meanwhile: only imbdyn
    knows which parts a merged one stands for.
    """
    from imbdyn.trace import TraceError
    from imbdyn.trace.compact import compact

    try:
        tables = compact(run)
    except (TraceError, OSError) as error:
        raise UserError(str(error)) from None
    if not quiet:
        for table in tables:
            click.echo(f"{table.table}: {table.before} parts, now {table.after}")
