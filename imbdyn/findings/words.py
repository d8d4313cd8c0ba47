"""Numbers in sentences."""

from __future__ import annotations


def two(value: float) -> str:
    """Return a number with two decimals; never "-0.00"."""
    return f"{round(value, 2) + 0.0:.2f}"


def times(value: float) -> str:
    """Return a factor with two decimals, in powers of ten where it has more than three digits before them."""
    return f"{value:.2f}" if abs(value) < 1000 else f"{value:.2e}"


def told_p(p_value: float | None) -> str:
    """Return a p-value in brackets, nothing where there is none."""
    return "" if p_value is None else f" ({p_is(p_value)})"


def p_is(p_value: float) -> str:
    """Return a p-value with three decimals; never "p = 0.000", which none is."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
