"""Words for the terminal as they are: nothing in them is markup, and nothing in them steers it."""

from __future__ import annotations

import textwrap

from rich.cells import cell_len
from rich.text import Text

#: Prose is not wider, however wide the terminal is.
_WIDEST_PROSE = 100

#: Stands behind a letter of two columns while text is filled: textwrap counts letters.
_SECOND_COLUMN = "\0"


def plain(words: str, style: str = "") -> Text:
    """Return words in which markup is text, and of which control characters (escape sequences) do not pass."""
    return Text("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in words), style)


def paragraph(words: str, width: int, style: str = "", *, indent: int = 0, hanging: int = 0) -> Text:
    """Return words as `plain`, in lines of at most `width` columns; rich would fill its lines with spaces.

    They are indented, later lines by `hanging` more.
    """
    spaced = "".join(letter + _SECOND_COLUMN * (cell_len(letter) - 1) for letter in plain(words).plain)
    margin = " " * indent
    filled = textwrap.fill(
        spaced, min(width, _WIDEST_PROSE), initial_indent=margin, subsequent_indent=margin + " " * hanging
    )
    return Text(filled.replace(_SECOND_COLUMN, ""), style)
