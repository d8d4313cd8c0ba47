"""A user's mistake, told in one plain sentence."""

from __future__ import annotations

import click


class UserError(click.ClickException):
    """Ends a command with exit code 2 and its message, without a traceback."""

    exit_code = 2
