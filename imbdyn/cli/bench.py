"""imbdyn bench: what the ops and a monitored training step cost on this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import click

from imbdyn.cli._errors import UserError


@click.command("bench")
@click.argument("what", metavar="[ops|steps]", type=click.Choice(["ops", "steps"]), required=False)
@click.option("--only", metavar="TEXT", default="", help="Only the lines whose name contains this.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=2,
    show_default=True,
    help="Time for each line; a large network takes longer, for it needs three rounds.",
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def command(what: str | None, only: str, seconds: float, quiet: bool, as_json: bool) -> None:
    """Measure what each op and a monitored training step cost here, beside a floor; by default both.

    An op stands beside its floor (mostly one read of its inputs) and beside plain torch, a step beside the bare one.
    All of it takes two to three minutes on two cores. Close other programs first. What is compared takes turns, and
    medians are shown, so ratios hold better than times do.
    """
    from imbdyn.bench.ops import OPS
    from imbdyn.bench.report import measured_on, report
    from imbdyn.bench.steps import STEPS

    suites = {"ops": OPS, "steps": STEPS}
    chosen = [suites[what]] if what else list(suites.values())
    asked = [(suite, names) for suite in chosen if (names := suite.matching(only))]
    if not asked:
        known = "; ".join(name for suite in chosen for name in suite.names)
        raise UserError(f"--only needs a part of a name, got {only!r}; the names are: {known}")
    fields: dict[str, object] = {}
    with _progress(sum(len(names) for _, names in asked), quiet, as_json) as (say, before):
        say(measured_on())
        for suite, names in asked:
            say("")
            fields.update(suite.as_json(suite.run(names, seconds, say, before)))
    if as_json:
        click.echo(json.dumps(report(**fields), indent=2, allow_nan=False))


@contextmanager
def _progress(total: int, quiet: bool, silent: bool) -> Iterator[tuple[Callable[[str], None], Callable[[str], None]]]:
    """Yield what shows a line on standard output (not if `silent`) and what is told the case that comes next.

    The latter moves a progress bar on standard error, if that is a terminal. The bar stands still while a case is
    measured, since a thread that redraws it would disturb the clock, and leaves while a line is shown.
    """

    def say(line: str) -> None:
        if not silent:
            click.echo(line)

    if quiet or not sys.stderr.isatty():
        yield say, lambda name: None  # noqa: ARG005
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    bars = Progress(
        *columns, console=Console(stderr=True), transient=True, auto_refresh=False,
        redirect_stdout=False, redirect_stderr=False,
    )  # fmt: skip
    task, done = bars.add_task("", total=total), count()

    def say_above(line: str) -> None:
        bars.stop()
        say(line)

    def before(name: str) -> None:
        bars.update(task, completed=next(done), description=name)
        bars.start()
        bars.refresh()

    try:
        yield say_above, before
    finally:
        bars.stop()
