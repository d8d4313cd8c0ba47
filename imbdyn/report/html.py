"""Runs as one page: a file that needs nothing but a browser, from the network nothing at all.

Whatever comes from a trace is text to the page. Should that fail anywhere, its policy (CSP) still lets no other script
run than the page's own, whose hash it names, and nothing be loaded from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from imbdyn import __version__
from imbdyn.findings.groups import class_names
from imbdyn.report.figures import SECTIONS, Source, palette
from imbdyn.report.finding_cards import card
from imbdyn.report.judge import judged
from imbdyn.report.names import run_names
from imbdyn.report.overview import Measure, Measured, class_rows, facts, measures
from imbdyn.report.page_data import DIGITS, embedded, figures_data
from imbdyn.report.problems import told_problems
from imbdyn.trace.schema import TABLES

if TYPE_CHECKING:
    from imbdyn.trace import Trace

#: In this order: each uses what stands before it.
_SCRIPTS = ("dom.js", "scale.js", "lines.js", "spans.js", "matrix.js", "figure.js", "page.js")


def page(traces: Sequence[Trace], on_figure: Callable[[], None] = lambda: None) -> str:
    """Return the page of one or several runs as HTML.

    Args:
        traces: the runs, in the order in which they stand beside each other.
        on_figure: called after every figure, for a progress bar.

    Raises: TraceError as `judged` does.
    """
    traces = [trace.frozen() for trace in traces]
    sources = [Source(trace) for trace in traces]
    names = run_names(traces)
    reference = _reference(traces)
    style, script = _style(), _script()
    rendered: str = _template().render(
        title=f"What each class did: {', '.join(names[:4])}{' and more' if len(names) > 4 else ''}",
        lede=_lede(names, reference),
        version=__version__,
        style=Markup(style),
        style_hash=_hash(style),
        script=Markup(script),
        script_hash=_hash(script),
        runs=names,
        reference=reference,
        others=[i for i in range(len(names)) if i != reference],
        contents=_contents(len(names)),
        findings=[
            (title, [card(finding, class_names(trace)) for finding in found]) for title, found, trace in judged(traces)
        ],
        facts=[facts(source) for source in sources],
        measures=measures(sources, reference),
        class_rows=(rows := class_rows(sources)),
        classes_note=_classes_note(len(rows), sources),
        sections=SECTIONS,
        methods=[_method(source) for source in sources],
        configs=[(name, _config(trace)) for name, trace in zip(names, traces, strict=True)],
        columns=_columns(),
        digits=DIGITS,
        data=Markup(embedded({"runs": names, "figures": figures_data(sources, names, reference, on_figure)})),
        measured=_measured,
        against=_against,
        shown=_shown,
    )
    return rendered


def _reference(traces: Sequence[Trace]) -> int:
    """Return the run that the others are set against: the balanced one of an experiment, else the first."""
    configs = [trace.run["config"] for trace in traces]
    return next((i for i, c in enumerate(configs) if isinstance(c, dict) and c.get("run") == "balanced"), 0)


def _lede(names: Sequence[str], reference: int) -> str:
    if len(names) == 1:
        return (
            "One training, read class by class: who was learned when, whose gradient moved the weights, and who was "
            "memorised."
        )
    return (
        f"{len(names)} trainings side by side, read class by class. Differences are against {names[reference]}. The "
        "rare classes are in colour, the others in grey."
    )


def _contents(runs: int) -> list[tuple[str, str]]:
    headings = ["Findings", "Runs", "Measures", "Classes", *SECTIONS, "Methods"]
    return [(heading.lower(), "Run" if heading == "Runs" and runs == 1 else heading) for heading in headings]


def _classes_note(rows: int, sources: Sequence[Source]) -> str:
    notes = []
    classes = len(sources[0].counts)
    if rows != classes:
        notes.append(f"{rows} of {classes:,} classes: those with the fewest samples, then those with the most.")
    if any(source.names != sources[0].names for source in sources):
        notes.append("The classes of the first run; a run whose class of that number has another name has no numbers.")
    return "".join(f" {note}" for note in notes)


def _method(source: Source) -> dict[str, str]:
    """Return what a run's record says of exactness and cost."""
    run = source.trace.run
    residual = source.read("parameters", ["residual"])["residual"].dropna()
    overhead, versions = run["overhead"], run.get("versions") or {}
    mixing = run.get("mixing_layers") or []
    return {
        "Largest residual": "no reading" if residual.empty else f"{residual.max():.1e}",
        "Mixing layers": ", ".join(mixing[:6]) + (f" and {len(mixing) - 6} more" if len(mixing) > 6 else "") or "none",
        "Time added": "not known" if overhead["share"] is None else f"{overhead['share']:.1%} of the training's time",
        "Lost rows": f"{run.get('dropped_rows', 0):,}",
        "Warned of": "; ".join(told_problems(source.trace)) or "nothing",
        "Made with": ", ".join([f"imbdyn {run.get('imbdyn')}", *(f"{name} {v}" for name, v in versions.items())]),
        "Begun, ended": f"{run.get('started')}, {run.get('ended') or 'not yet'}",
        "Seed": str(run.get("seed")),
    }


def _config(trace: Trace) -> str:
    return json.dumps(trace.run["config"], indent=2, ensure_ascii=False)


def _columns() -> list[dict[str, str]]:
    keys = {key for table in TABLES.values() for key in table.key}
    return [
        {
            "name": f"{table.name}.{column.name}",
            "text": "; ".join(filter(None, (column.formula, column.unit and f"in {column.unit}", column.source))),
        }
        for table in TABLES.values()
        for column in table.columns
        if column.name not in keys
    ]


def _measured(cell: Measured | None, form: str, sign: str = "") -> Markup:
    """Return a number with its interval."""
    if cell is None:
        return Markup("–")
    value = round(cell.value, 12) + 0.0  # no "-0.000"
    shown = Markup("{}").format(_minus(f"{value:{sign if value else ''}{form}}"))
    if cell.lower is None or cell.upper is None:
        return shown
    lower, upper = (round(end, 12) + 0.0 for end in (cell.lower, cell.upper))
    ends = _minus(f"[{lower:{form}}, {upper:{form}}]")
    return Markup('{} <span class="interval-text">{}</span>').format(shown, ends)


def _against(cell: Measured | None, measure: Measure) -> Markup:
    """Return a difference with its sign, or a ratio."""
    if cell is not None and measure.are_ratios:
        return Markup("×{}").format(f"{cell.value:.3g}")
    return _measured(cell, measure.form, "+")


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else _minus(f"{value:{form}}")


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


@cache
def _template() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    return environment.from_string(_asset("page.html.jinja"))


@cache
def _style() -> str:
    light, dark = [*palette.LIGHT, palette.GREY_LIGHT], [*palette.DARK, palette.GREY_DARK]
    names = [*(f"--c{i}" for i in range(len(palette.LIGHT))), "--grey"]
    colours = "".join(f"{name}:light-dark({a},{b});" for name, a, b in zip(names, light, dark, strict=True))
    return f":root{{{colours}}}\n{_asset('style.css')}"


@cache
def _script() -> str:
    return "\n".join(_asset(name) for name in _SCRIPTS)


def _asset(name: str) -> str:
    return (files("imbdyn.report") / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the hash by which the policy knows a script or a style."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
