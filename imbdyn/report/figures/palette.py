"""Colours that colour-blind readers can tell apart, for light and for dark backgrounds.

A test simulates the three kinds of colour blindness (Machado, Oliveira, Fernandes 2009) and measures the distances, and
the contrast with the background (WCAG 2.2, 1.4.11: at least 3 to 1).
"""

from __future__ import annotations

#: Of the classes or curves that stand out, in the order in which they are given out. Found by a random search for the
#: largest smallest distance that any reader sees, among colours at least 36 degrees of hue apart.
LIGHT = ("#b53e16", "#24468f", "#197c67", "#9a4bc8", "#b58813", "#732144")
DARK = ("#da5c2d", "#589afe", "#75fdf7", "#fb99b7", "#fed797", "#a6c013")

#: Of what recedes.
GREY_LIGHT, GREY_DARK = "#8a9199", "#7d858e"

BACKGROUND_LIGHT, BACKGROUND_DARK = "#ffffff", "#181b1f"

#: Ends of the scale from -1 (conflict) to 1 (agreement), light theme.
NEGATIVE, NEUTRAL, POSITIVE = LIGHT[0], "#f4f4f2", LIGHT[1]


def colour_of(position: int | None) -> str:
    """Return the colour of a series on a light background; positions past the end begin again."""
    return GREY_LIGHT if position is None else LIGHT[position % len(LIGHT)]
