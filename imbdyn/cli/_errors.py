"""A user's mistake, or a damaged trace, told in one plain sentence."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import click


class UserError(click.ClickException):
    """Ends a command with exit code 2 and its message, without a traceback."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    """Return text without control characters: names in a stranger's trace may not steer the terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


@contextmanager
def damage_told() -> Iterator[list[str]]:
    """Print a line on standard error for every damage that is met in a trace, and return these lines."""
    from imbdyn.trace import TraceDamage

    told: list[str] = []

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, TraceDamage):
            usual(message, category, filename, lineno, file, line)
            return
        told.append(printable(str(message)))
        click.echo(f"Warning: {told[-1]}", err=True)

    with warnings.catch_warnings():
        usual = warnings.showwarning
        warnings.simplefilter("always", TraceDamage)
        warnings.showwarning = show
        yield told
