"""Findings as the page shows them: the verdict, the measure with its interval drawn, the sentence and the rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from imbdyn.findings import Finding
from imbdyn.report.figures.summary import number

_SIGNS = {"supported": "✓", "refuted": "✗"}

#: So many classes are listed in their order; of more, those with the lowest and the highest values, half each.
_MOST_CLASSES = 12


def card(finding: Finding, class_names: Sequence[str] = ()) -> dict[str, Any]:
    """Return what the template shows of a finding; what it does not have is None or left out.

    `class_names` are by class_id; a class without one is called "class 3".
    """
    value, lower, upper, p = finding.value, finding.lower, finding.upper, finding.p_value
    return {
        "title": finding.claim or finding.name.replace("_", " "),
        "verdict": finding.verdict,
        "sign": _SIGNS.get(str(finding.verdict), "?"),
        "value": None if value is None else number(value),
        "unit": finding.unit,
        "interval": None if lower is None or upper is None else f"95% {number(lower)} to {number(upper)}",
        "p_value": None if p is None else number(p) if p >= 0.001 else "< 0.001",
        "compared_with": finding.compared_with,
        "drawn": _drawn(value, lower, upper, finding.threshold),
        "sentence": finding.sentence,
        "rule": finding.rule,
        "facts": _facts(finding),
        "by_class": _by_class(finding.by_class or {}, class_names),
    }


def _facts(finding: Finding) -> list[tuple[str, str]]:
    """Return labels and texts of what else the finding has."""
    beside = {name: value for name, value in (finding.beside or {}).items() if value is not None}
    facts = [
        ("Compared with", finding.compared_with if finding.value is not None and not finding.rule else ""),
        ("Without the phenomenon", "" if finding.null is None or finding.value is None else number(finding.null)),
        ("Effect size", "" if finding.effect_size is None else f"{number(finding.effect_size)}, {finding.effect}"),
        ("Steps", "" if finding.steps is None else _steps(*finding.steps)),
        ("In other runs", "; ".join(f"{name} {number(value)}" for name, value in beside.items())),
    ]
    return [(label, text.removesuffix(", ")) for label, text in facts if text]


def _steps(first: int, last: int) -> str:
    begin = "before the first" if first == 0 else f"{first:,}"
    return begin if last == first else f"{begin} to {last:,}"


def _by_class(values: Mapping[int, float], names: Sequence[str]) -> dict[str, Any] | None:
    """Return the label and the classes with their values; None without any."""
    if not values:
        return None
    label, shown = "Per class", sorted(values)
    if len(values) > _MOST_CLASSES:
        ranked = sorted(values, key=values.__getitem__)
        shown = [*ranked[: _MOST_CLASSES // 2], *ranked[-_MOST_CLASSES // 2 :]]
        label = f"Per class, the lowest and highest of {len(values):,}"
    named = [(names[c] if c < len(names) else f"class {c}", number(values[c])) for c in shown]
    return {"label": label, "classes": named}


def _drawn(
    value: float | None, lower: float | None, upper: float | None, threshold: float | None
) -> dict[str, Any] | None:
    """Return where value, interval, threshold and 0 stand on a line from 0 to 100; None without a threshold."""
    if value is None or threshold is None:
        return None
    marks = [mark for mark in (0.0, value, lower, upper, threshold) if mark is not None]
    low, high = min(marks), max(marks)
    room = (high - low) * 0.06 or 1.0
    low, high = low - room, high + room

    def place(mark: float) -> float:
        return round(100 * (mark - low) / (high - low), 2)

    return {
        "value": place(value),
        "lower": None if lower is None else place(lower),
        "upper": None if upper is None else place(upper),
        "threshold": place(threshold),
        "threshold_text": number(threshold),
        "anchor": "start" if place(threshold) < 25 else "end" if place(threshold) > 75 else "middle",
    }
