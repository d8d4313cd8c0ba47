"""The command line: a table of commands, each in a file of its own that is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module

import click

from imbdyn import __version__

#: Where each command is. torch and pyarrow are loaded in the bodies of the commands, so that --help is quick.
COMMANDS = {
    "run": "imbdyn.cli.run:command",
    "study": "imbdyn.cli.study:command",
    "show": "imbdyn.cli.show:command",
    "report": "imbdyn.cli.report:command",
    "export": "imbdyn.cli.export:command",
    "check": "imbdyn.cli.check:command",
    "compact": "imbdyn.cli.compact:command",
    "bench": "imbdyn.cli.bench:command",
    "info": "imbdyn.cli.info:command",
}


class LazyGroup(click.Group):
    """A group whose commands are the ones in `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


@click.group(cls=LazyGroup)
@click.version_option(__version__, prog_name="imbdyn")
def main() -> None:
    """Measure what each class does to a network while it trains on imbalanced data."""
