"""imbdyn check: verify a trace, and repair it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from imbdyn.cli._errors import UserError, printable

if TYPE_CHECKING:
    from imbdyn.trace.check import Report
    from imbdyn.trace.repair import Repair


@click.command("check")
@click.argument("run")
@click.option("--repair", is_flag=True, help="Keep every whole batch, put aside what is damaged, say what is lost.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def command(run: str, repair: bool, as_json: bool) -> None:
    """Verify the trace RUN, a folder or a URI: all checksums, the schema, the keys, and that nothing is missing.

    The exit code is 0 if the trace is sound, or has become so, and 1 if it is not. A repair deletes nothing: what it
    takes out is in RUN/_quarantine, and run.json then says what is lost. Of a URI, it sends what this machine has.
    """
    from imbdyn.trace import TraceError
    from imbdyn.trace.check import check
    from imbdyn.trace.repair import repair as repair_trace

    done: Repair | None = None
    try:
        if repair:
            done = repair_trace(run)
            report = done.after
        else:
            report = check(run)
    except (TraceError, OSError) as error:
        raise UserError(str(error)) from None
    if as_json:
        repaired: dict[str, Any] = {} if done is None else {"done": done.done, "lost": done.lost}
        if done is not None and done.before is not None:
            repaired["before"] = done.before.as_json()
        click.echo(json.dumps({**report.as_json(), **repaired}, indent=2))
    else:
        if done is not None:
            _say_lines("repaired", done.done)
            _say_lines("lost", done.lost)
        _say(report, repaired=repair)
    if not report.ok:
        raise click.exceptions.Exit(1)


def _say(report: Report, *, repaired: bool) -> None:
    _say_lines("note", report.notes)
    for problem in report.problems:
        _say_lines(problem.kind, [f"{problem.file}: {problem.message}"])
    rows = sum(table["rows"] + table["journal_rows"] for table in report.tables.values())
    parts = sum(table["parts"] for table in report.tables.values())
    state = "sound" if report.ok else f"not sound, {len(report.problems)} problems"
    hint = "" if report.ok or repaired else "; --repair keeps what is whole"
    click.echo(
        printable(
            f"{report.path} ({report.status}): {state}{hint}. {rows} rows of {len(report.tables)} tables in {parts} "
            f"parts and {report.commits} commits of the journal."
        )
    )


def _say_lines(what: str, lines: list[str]) -> None:
    for line in lines:
        click.echo(printable(f"{what + ':':<10}{line}"))
