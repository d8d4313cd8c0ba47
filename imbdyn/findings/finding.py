"""What a claim comes to on a run: a number, what it is compared with, and the verdict by a stated threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["supported", "refuted", "not decided"]


@dataclass(frozen=True)
class Finding:
    """One claim, measured."""

    name: str
    """Name of the claim's function."""
    claim: str
    """The claim in one sentence, whatever the numbers say."""
    value: float | None
    """The measure; None where the trace does not have it."""
    unit: str
    lower: float | None
    """95% interval of `value`, or None where the claim is judged by a test."""
    upper: float | None
    p_value: float | None
    """Of the test against `threshold` in the direction of the verdict; None where it is judged by an interval."""
    compared_with: str
    """What `value` is set against."""
    threshold: float
    """In the unit of `value`."""
    rule: str
    """How value and threshold make the verdict."""
    verdict: Verdict
    sentence: str
    """For people, built from the numbers of the run."""


def by_interval(lower: float, upper: float, threshold: float, above: Verdict, below: Verdict) -> Verdict:
    """Return `above` or `below` if the whole interval lies on that side of `threshold`, else "not decided"."""
    if lower > threshold:
        return above
    return below if upper <= threshold else "not decided"
