"""Tables of runs, verdicts on the claims and other findings, 80 columns wide, readable without colours."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import IO, TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from imbdyn.findings import Finding, groups, per_class
from imbdyn.findings.recall import held_out_split, train_split

if TYPE_CHECKING:
    from imbdyn.trace import Trace

WIDTH = 80

#: More classes than this are shown as the largest and the smallest ones, half each.
_MOST_ROWS = 40

_COLUMNS = {
    "class": 15,
    "count": 7,
    "epoch\nof 50%": 6,
    "train\nrecall": 6,
    "test\nrecall": 6,
    "gap": 5,
    "grad\nearly": 7,
    "grad\nlate": 7,
    "row\nnorm": 5,
}

_LEGEND = (
    "epoch of 50%: the first with that train recall, - if never. gap: train minus test recall, both at "
    "the last epoch. grad: norm of the class's part of the whole network's gradient, mean over the first and the last "
    "tenth of the sampled steps, a contribution, so it carries the class's share of the batch. row norm: of the "
    "class's row of the classifier, the last read. A mean is over classes, - if one has no value."
)


def report_console(file: IO[str] | None = None) -> Console:
    """Return a console that is always 80 columns wide, so that a report is the same in a pipe; NO_COLOR is kept."""
    return Console(file=file, width=WIDTH, highlight=False)


def show_runs(out: Console, traces: Iterable[Trace]) -> None:
    """Print a table for each run, then once what the columns mean."""
    for trace in traces:
        out.print(_heading(trace), soft_wrap=True)  # a path that was wrapped could not be copied
        out.print(_table(trace))
        out.print(_text(_source(trace), "dim", indent=0))
        out.print()
    out.print(_text(_LEGEND, "dim", indent=0))


def show_findings(out: Console, title: str, findings: Sequence[Finding]) -> None:
    """Print claims with their verdicts, sentences and rules; of what else is measured, a line or two each."""
    out.print()
    beside = next((", ".join(finding.beside) for finding in findings if finding.beside and not finding.verdict), "")
    out.print(_text(f"{title} [{beside}]" if beside else title, "bold"))
    for number, finding in enumerate(findings, start=1):
        if finding.verdict is not None:
            _show_claim(out, number, finding)
        elif finding.kind == "next step":
            out.print(_text(f"- {finding.sentence}", indent=0, hanging=2))
        elif finding.value is not None:
            name = finding.name.replace("_", " ")
            line = _text(f"{name} {_beside(finding)}: {finding.sentence}", indent=0, hanging=2)
            line.stylize("bold", 0, len(name))
            out.print(line)
    without = [finding.name for finding in findings if finding.verdict is None and finding.value is None]
    if without and findings[0].kind == "phenomenon":
        names = ", ".join(name.replace("_", " ") for name in without)
        out.print(_text(f"Without a value (trace.findings() says why): {names}.", "dim", indent=0, hanging=2))


def _show_claim(out: Console, number: int, finding: Finding) -> None:
    assert finding.verdict is not None
    claim = Text(textwrap.fill(f"{number}. {finding.verdict.upper()}: {finding.claim}", WIDTH, subsequent_indent="   "))
    claim.stylize(_STYLE[finding.verdict], len("1. "), len("1. ") + len(finding.verdict))
    out.print(claim)
    for line, style in ((finding.sentence, ""), (f"{_number(finding)} ({finding.rule}).", "dim")):
        out.print(_text(line, style, indent=3))


def _beside(finding: Finding) -> str:
    """Show the value, and in brackets those of the runs beside it."""
    beside = f" [{', '.join(map(_short, finding.beside.values()))}]" if finding.beside else ""
    return f"{_short(finding.value)}{beside}"


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if 0.1 <= abs(value) < 100 or value == 0 else f"{value:.2g}"


_STYLE = {"supported": "bold green", "refuted": "bold red", "not decided": "bold yellow"}


def _text(words: str, style: str = "", indent: int | None = None, hanging: int = 0) -> Text:
    """Show words as they are: markup in them is text, and control characters (escape sequences) do not pass.

    With `indent` they are a paragraph, wrapped here: rich would fill its lines with spaces. Its later lines stand
    `hanging` further to the right.
    """
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in words)
    if indent is not None:
        margin = " " * indent
        shown = textwrap.fill(shown, WIDTH, initial_indent=margin, subsequent_indent=margin + " " * hanging)
    return Text(shown, style)


def _number(finding: Finding) -> str:
    if finding.value is None:
        return "No value"
    interval = "" if finding.lower is None else f" [{finding.lower:.3f}, {finding.upper:.3f}]"
    p_value = "" if finding.p_value is None else f", p = {finding.p_value:.3f}"
    return f"{finding.value:.3f} {finding.unit}{interval}{p_value}, compared with {finding.compared_with}"


def _heading(trace: Trace) -> Text:
    status = str(trace.run["status"])
    return Text.assemble(
        _text(trace.path.name, "bold"),
        _text(f"  {trace.path}  "),
        _text(status, "" if status == "finished" else "bold yellow"),
    )


def _source(trace: Trace) -> str:
    """Say where the numbers of a run come from, and what reading them cost."""
    overhead = trace.run["overhead"]
    share = overhead["share"]
    held_out = held_out_split(trace)
    return (
        f"Train recall from {train_split(trace)}, test recall from {held_out or 'no evaluation'}; "
        f"*: {groups(trace).rule}. Instrumentation added {'?' if share is None else f'{share:.1%}'} to the time "
        f"of training; {overhead['sampled_steps']} of {overhead['steps']} steps were sampled."
    )


def _table(trace: Trace) -> Table:
    measures = per_class(trace)
    table = Table(pad_edge=False, box=None, header_style="underline")
    for name, width in _COLUMNS.items():
        left = name == "class"
        table.add_column(name, justify="left" if left else "right", width=width, no_wrap=True, vertical="bottom")
    largest, smallest = measures, measures.iloc[:0]
    if len(measures) > _MOST_ROWS:
        by_count = measures.sort_values("count", ascending=False, kind="stable")
        largest, smallest = by_count.iloc[: _MOST_ROWS // 2], by_count.iloc[-_MOST_ROWS // 2 :]
    _add_rows(table, largest)
    if len(smallest):
        table.add_row(f"  ({len(measures) - _MOST_ROWS} more)")
        _add_rows(table, smallest)
    if measures["rare"].nunique() == 2:
        table.add_section()
        for label, rare in (("mean of these", True), ("mean of rest", False)):
            group = measures[measures["rare"] == rare].drop(columns=["name", "rare"])
            _add_row(table, label, rare, group.astype("Float64").mean(skipna=False), digits=1)
    return table


def _add_rows(table: Table, measures: pd.DataFrame) -> None:
    for _, row in measures.iterrows():
        _add_row(table, str(row["name"]), bool(row["rare"]), row)


def _add_row(table: Table, name: str, rare: bool, row: pd.Series[Any], digits: int = 0) -> None:
    table.add_row(
        _text(f"{'*' if rare else ' '} {name}"),
        f"{row['count']:.0f}",
        _cell(row["epoch_learned"], f".{digits}f"),
        *(_cell(row[column], ".2f") for column in ("train_recall", "test_recall", "gap")),
        *(_norm_cell(row[column]) for column in ("grad_norm_early", "grad_norm_late")),
        _cell(row["row_norm"], ".2f"),
        style="bold" if rare else "",
    )


def _cell(value: float, form: str) -> str:
    return "-" if pd.isna(value) else f"{value:{form}}"


def _norm_cell(value: float) -> str:
    """Show a gradient norm in at most seven characters: it spans many orders of magnitude."""
    return _cell(value, ".3g" if pd.isna(value) or 0.001 <= value < 1e5 else ".1e")
