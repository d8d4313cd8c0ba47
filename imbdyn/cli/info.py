"""imbdyn info: what this machine has, and which implementation serves each op."""

from __future__ import annotations

import json

import click


@click.command("info")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def command(as_json: bool) -> None:
    """Print versions, processor and GPU, and which implementation serves each op, and why not the others."""
    from imbdyn.report.machine import machine, show_machine
    from imbdyn.report.terminal import report_console

    found = machine()
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        show_machine(report_console(), found)
