"""The table of a study, 80 columns wide, readable without colours."""

from __future__ import annotations

import json
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from imbdyn.report.terminal import WIDTH

if TYPE_CHECKING:
    from imbdyn.experiments.study.summary import Effect, Summary

_STYLE = {"supported": "bold green", "refuted": "bold red", "not decided": "bold yellow"}

_LEGEND = (
    "effect: mean over seeds of the measure, with its 95% interval by bootstrap over seeds (each row alone). trend: "
    "mean slope over log10(IR), the change of the effect when IR grows tenfold. A row is decided if its whole interval "
    "lies on one side of the threshold. Claims 2 and 3 are supported if the effect at the largest IR is above the "
    "threshold and the trend above 0, refuted if that effect is not above it, or the trend at most 0; claim 1 by the "
    "balanced runs. Not decided: fewer than 5 seeds, a seed without a value, for claim 3 rare classes with less than "
    "0.9 train recall. A verdict holds for these data and this network. What scarcity alone does is part of claim 3's "
    "effect; what is left without it stands below it."
)


def show_study(out: Console, name: str, summaries: Sequence[Summary]) -> None:
    """Print one table for each group of experiments, and once what its columns mean."""
    differing = _differing([summary.group for summary in summaries])
    for key, group in groupby(summaries, key=lambda summary: summary.group):
        found = list(group)
        first = found[0]
        options = "".join(f", {option}" for option in differing[key])
        out.print(
            _wrapped(
                f"Study {name}: {first.data}, {first.model}, {first.method}, {first.profile} imbalance{options}", "bold"
            )
        )
        out.print(Text(_line("IR", "seeds", "effect", "95% interval", "unit", "verdict"), "underline"))
        claims = [summary for summary in found if summary.threshold is not None]
        for summary in found:
            number = f"{claims.index(summary) + 1}. " if summary in claims else ""
            out.print(_heading(number, summary))
            for effect in summary.effects:
                out.print(_row(f"{effect.ir:.3g}", effect, summary.unit))
            if summary.trend is not None:
                out.print(_row("trend", summary.trend, summary.unit))
        out.print()
    out.print(_wrapped(_LEGEND, "dim"))


#: Keys of a configuration that a heading has in any case, or that are no choice of a user's.
_IN_HEADING = ("name", "data.name", "model.name", "method.name", "imbalance.profile")


def _differing(groups: Sequence[str]) -> dict[str, list[str]]:
    """Return, of each group of experiments, the settings that are not alike in all that have them."""
    configs = {group: dict(_flat(json.loads(group))) for group in groups}
    values: dict[str, set[str]] = defaultdict(set)
    for config in configs.values():
        for key, value in config.items():
            values[key].add(json.dumps(value))
    return {
        group: [
            f"{key} {value if isinstance(value, str) else json.dumps(value)}"
            for key, value in config.items()
            if len(values[key]) > 1 and key not in _IN_HEADING
        ]
        for group, config in configs.items()
    }


def _flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def study_records(summaries: Sequence[Summary]) -> list[dict[str, Any]]:
    """Return the same as JSON can hold it."""
    return [asdict(summary) for summary in summaries]


def _heading(number: str, summary: Summary) -> Text:
    verdict = summary.verdict or ""
    words = f"{number}{verdict.upper()}: {summary.claim}" if verdict else summary.claim
    heading = _wrapped(words, indent=" " * len(number))
    heading.stylize(_STYLE.get(verdict, ""), len(number), len(number) + len(verdict))
    return heading


def _row(label: str, effect: Effect, unit: str) -> Text:
    interval = f"[{_number(effect.lower)}, {_number(effect.upper)}]" if effect.lower is not None else "-"
    verdict = effect.verdict or ""
    line = Text(_line(label, str(effect.seeds), _number(effect.value), interval, unit, verdict))
    line.stylize(_STYLE.get(verdict, ""), len(line) - len(verdict))
    return line


def _number(value: float | None) -> str:
    return "-" if value is None else f"{round(value, 3) + 0.0:.3f}"  # + 0.0: no "-0.000"


def _line(label: str, seeds: str, value: str, interval: str, unit: str, verdict: str) -> str:
    return f"{label:>8}  {seeds:>5}  {value:>8}  {interval:<18}  {unit:<7}  {verdict}"


def _wrapped(words: str, style: str = "", indent: str = "") -> Text:
    return Text(textwrap.fill(words, WIDTH, subsequent_indent=indent), style)
