"""Tables of runs, verdicts on the claims and other findings: 80 columns wide or more, readable without colours."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import IO, TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from imbdyn.findings import Finding, groups
from imbdyn.findings.recall import held_out_split, train_split
from imbdyn.findings.words import p_is
from imbdyn.report.class_table import class_table, groups_shown, legend
from imbdyn.report.plain import paragraph, plain
from imbdyn.report.problems import told_problems

if TYPE_CHECKING:
    from imbdyn.trace import Trace

#: The least width of a report, and that of one which goes to a pipe or a file.
WIDTH = 80

VERDICT_STYLE = {"supported": "bold green", "refuted": "bold red", "not decided": "bold yellow"}


def report_console(file: IO[str] | None = None) -> Console:
    """Return a console as wide as the terminal, or as COLUMNS says, but no narrower than 80 columns.

    It is 80 columns wide in a pipe, so that a report is the same there. NO_COLOR and TERM=dumb are kept.
    """
    out = Console(file=file, width=max(WIDTH, terminal_width(file)), highlight=False)
    if out.options.ascii_only and hasattr(out.file, "reconfigure"):
        out.file.reconfigure(errors="replace")  # a class may have a name for which the encoding has no letters
    return out


def terminal_width(file: IO[str] | None = None) -> int:
    """Return the columns of the terminal that `file`, or standard output, is, 80 if it is none; COLUMNS goes first."""
    named = os.environ.get("COLUMNS", "")
    if named.isdecimal() and int(named):
        return int(named)
    try:
        return os.get_terminal_size((file or sys.stdout).fileno()).columns or WIDTH
    except (OSError, ValueError):  # no terminal, or no file of the system
        return WIDTH


def show_runs(out: Console, traces: Iterable[Trace]) -> None:
    """Print a table for each run with what was warned of, then once what the columns mean."""
    for trace in traces:
        out.print(heading(trace), soft_wrap=True)  # a path that was wrapped could not be copied
        out.print(class_table(trace, out.width, ascii_only=out.options.ascii_only))
        out.print(paragraph(_source(trace), out.width, "dim"))
        for problem in told_problems(trace):
            out.print(paragraph(f"Warned: {problem}.", out.width, "bold yellow", hanging=2))
        out.print()
    out.print(paragraph(legend(out.width), out.width, "dim"))


def show_findings(out: Console, title: str, findings: Sequence[Finding]) -> None:
    """Print claims with their verdicts, sentences and rules; of what else is measured, a line or two each."""
    out.print()
    beside = next((", ".join(finding.beside) for finding in findings if finding.beside and not finding.verdict), "")
    out.print(paragraph(f"{title} [{beside}]" if beside else title, out.width, "bold"))
    for number, finding in enumerate(findings, start=1):
        if finding.verdict is not None:
            _show_claim(out, number, finding)
        elif finding.kind == "next step":
            out.print(paragraph(f"- {finding.sentence}", out.width, hanging=2))
        elif finding.value is not None:
            name = finding.name.replace("_", " ")
            line = paragraph(f"{name} {_beside(finding)}: {finding.sentence}", out.width, hanging=2)
            line.stylize("bold", 0, len(name))
            out.print(line)
    without = [finding.name for finding in findings if finding.verdict is None and finding.value is None]
    if without and findings[0].kind == "phenomenon":
        names = ", ".join(name.replace("_", " ") for name in without)
        out.print(paragraph(f"Without a value (trace.findings() says why): {names}.", out.width, "dim", hanging=2))


def heading(trace: Trace) -> Text:
    """Return name, place and status of a run in one line."""
    status = str(trace.run["status"])
    return Text.assemble(
        plain(trace.path.name, "bold"),
        plain(f"  {trace.path}  "),
        plain(status, "" if status == "finished" else "bold yellow"),
    )


def _show_claim(out: Console, number: int, finding: Finding) -> None:
    assert finding.verdict is not None
    claim = paragraph(f"{number}. {finding.verdict.upper()}: {finding.claim}", out.width, hanging=3)
    claim.stylize(VERDICT_STYLE[finding.verdict], len("1. "), len("1. ") + len(finding.verdict))
    out.print(claim)
    for line, style in ((finding.sentence, ""), (f"{_number(finding)} ({finding.rule}).", "dim")):
        out.print(paragraph(line, out.width, style, indent=3))


def _beside(finding: Finding) -> str:
    """Show the value, and in brackets those of the runs beside it."""
    beside = f" [{', '.join(map(_short, finding.beside.values()))}]" if finding.beside else ""
    return f"{_short(finding.value)}{beside}"


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if 0.1 <= abs(value) < 100 or value == 0 else f"{value:.2g}"


def _number(finding: Finding) -> str:
    if finding.value is None:
        return "No value"
    p_value = "" if finding.p_value is None else f", {p_is(finding.p_value)}"
    return f"{measured(finding)}{p_value}, compared with {finding.compared_with}"


def measured(finding: Finding) -> str:
    """Return value, unit and interval of a finding that has a value."""
    interval = "" if finding.lower is None else f" [{finding.lower:.3f}, {finding.upper:.3f}]"
    return f"{finding.value:.3f} {finding.unit}{interval}"


def _source(trace: Trace) -> str:
    """Say where the numbers of a run come from, and what reading them cost."""
    overhead = trace.run["overhead"]
    share = overhead["share"]
    held_out = held_out_split(trace)
    added = (
        f"Instrumentation added {'?' if share is None else f'{share:.1%}'} to the time of training; "
        f"{overhead['sampled_steps']} of {overhead['steps']} steps were sampled."
    )
    return (
        f"Train recall from {train_split(trace)}, test recall from {held_out or 'no evaluation'}; "
        f"{groups_shown(trace)}*: {groups(trace).rule}. {added if overhead['steps'] else 'No step was trained.'}"
    )
