"""What a phenomenon comes to on a run: a number, what it is compared with, where it happened, and a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["supported", "refuted", "not decided"]
Kind = Literal["claim", "phenomenon", "next step"]

#: What the rule of every claim ends with: intervals and tests are of one training, `imbdyn study` repeats it.
ONE_SEED = "other seeds may differ"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One phenomenon, measured. A claim has a threshold, a rule and a verdict; a mere measurement has none of them."""

    name: str
    """Name of the function that measures it."""
    kind: Kind = "phenomenon"
    claim: str
    """The claim, or what is measured, in one sentence, whatever the numbers say."""
    value: float | None = None
    """The measure; None where the trace does not have it."""
    unit: str = ""
    lower: float | None = None
    """95% interval of `value`, or None where there is none."""
    upper: float | None = None
    p_value: float | None = None
    """Of a claim: against `threshold` in the direction of the verdict. Else: two-sided, of the rare classes' values
    against the others', or as `claim` says. None where there is no test."""
    null: float | None = None
    """What `value` is where the phenomenon is absent; None where there is no such number."""
    compared_with: str = ""
    """What `value` is set against."""
    effect_size: float | None = None
    effect: str = ""
    """What `effect_size` is."""
    threshold: float | None = None
    """In the unit of `value`."""
    rule: str = ""
    """How value and threshold make the verdict."""
    verdict: Verdict | None = None
    steps: tuple[int, int] | None = None
    """The first and the last optimizer step of where it happened, or of what was measured; 0 is before the first."""
    by_class: dict[int, float] | None = None
    """The measure of each class, by class_id, of those that have one."""
    beside: dict[str, float | None] | None = None
    """`value` in the runs that this one is compared with, by their names."""
    sentence: str = ""
    """For people, built from the numbers of the run."""


def by_interval(lower: float, upper: float, threshold: float, above: Verdict, below: Verdict) -> Verdict:
    """Return `above` or `below` if the whole interval lies on that side of `threshold`, else "not decided"."""
    if lower > threshold:
        return above
    return below if upper <= threshold else "not decided"
