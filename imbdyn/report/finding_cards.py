"""Findings as the page shows them: the verdict, the measure with its interval drawn, the sentence and the rule."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from imbdyn.findings import Finding
from imbdyn.report.figures.summary import number

_SIGNS = {"supported": "✓", "refuted": "✗"}

#: What a card has a place for; any other field of a finding is a line of its own.
_PLACED = {
    "name",
    "kind",
    "claim",
    "value",
    "unit",
    "lower",
    "upper",
    "p_value",
    "compared_with",
    "threshold",
    "rule",
    "verdict",
    "sentence",
}


def card(finding: Finding) -> dict[str, Any]:
    """Return what the template shows of a finding; whatever it does not have is None."""
    fields = asdict(finding)
    value, lower, upper = (fields.get(name) for name in ("value", "lower", "upper"))
    verdict = fields.get("verdict")
    more = {
        name.replace("_", " "): _text(content)
        for name, content in fields.items()
        if name not in _PLACED and content not in (None, "", (), [])
    }
    return {
        "title": fields.get("claim") or fields["name"].replace("_", " "),
        "verdict": verdict,
        "sign": _SIGNS.get(str(verdict), "?"),
        "value": None if value is None else number(value),
        "unit": fields.get("unit") or "",
        "interval": None if lower is None or upper is None else f"95% {number(lower)} to {number(upper)}",
        "p_value": None if (p := fields.get("p_value")) is None else number(p) if p >= 0.001 else "< 0.001",
        "compared_with": fields.get("compared_with"),
        "drawn": _drawn(value, lower, upper, fields.get("threshold")),
        "sentence": fields.get("sentence"),
        "rule": fields.get("rule"),
        "more": more,
    }


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


def _text(content: Any) -> str:
    if isinstance(content, float):
        return number(content)
    if isinstance(content, dict):
        content = [f"{name}: {_text(value)}" for name, value in content.items()]
    if isinstance(content, list | tuple):
        shown = ", ".join(_text(item) for item in content[:12])
        return shown + (f" and {len(content) - 12} more" if len(content) > 12 else "")
    return str(content)
