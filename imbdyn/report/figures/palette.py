"""Colours that colour-blind readers can tell apart, for light and for dark backgrounds.

A test simulates the three kinds of colour blindness (Machado, Oliveira, Fernandes 2009) and measures the distances, and
the contrast with the background (WCAG 2.2, 1.4.11: at least 3 to 1).
"""

from __future__ import annotations

#: Of the classes or curves that stand out, in the order in which they are given out. Five to eight repeat the hues.
LIGHT = ("#c4480c", "#0a63a8", "#00825f", "#a8408f", "#9a6b00", "#4f8fd6")
DARK = ("#ff8a4c", "#5aa9ef", "#2fc394", "#e98fd3", "#e3b341", "#a9c8f5")

#: Of what recedes.
GREY_LIGHT, GREY_DARK = "#8a9199", "#7d858e"

BACKGROUND_LIGHT, BACKGROUND_DARK = "#ffffff", "#181b1f"

#: Ends of the scale from -1 (conflict) to 1 (agreement), light theme.
NEGATIVE, NEUTRAL, POSITIVE = "#c4480c", "#f4f4f2", "#0a63a8"


def colour_of(position: int | None) -> str:
    """Return the colour of a series on a light background; positions past the end begin again."""
    return GREY_LIGHT if position is None else LIGHT[position % len(LIGHT)]
