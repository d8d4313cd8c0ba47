"""Runs that go on, shown as they go: drawn again in place on a terminal, else told after each epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from imbdyn.findings import single
from imbdyn.findings.recall import held_out_split, recall_curves, train_split
from imbdyn.report.class_table import class_table
from imbdyn.report.plain import plain
from imbdyn.report.terminal import VERDICT_STYLE, measured, terminal_width
from imbdyn.trace import LiveTrace

#: Seconds between two looks; more where a look takes long, so that it takes a tenth of the time at most.
_SECONDS, _PART = 1.0, 0.1

#: Runs have ended when so many looks in a row find none that goes on: where one begins after another, there is a gap.
_LAST_LOOKS = 2

#: A run that goes on without anything new for so many seconds is told.
_SILENCE_TOLD = 15.0

#: Lines of a block beside the classes: heading, head of the table, groups, claims, and one that stays free.
_OTHER_LINES = 9

Look = Callable[[], Sequence[LiveTrace]]
View = Callable[[Sequence[LiveTrace]], None]


def follow(look: Look, view: View) -> list[LiveTrace]:
    """Call `view` with the runs that `look` finds until all have ended, or are abandoned, and return them.

    Without any run it waits for one.
    """
    last_looks = 0
    while True:
        began = time.monotonic()
        runs = list(look())
        view(runs)
        goes_on = [run for run in runs if run.run["status"] == "running" and not run.is_abandoned()]
        last_looks = 0 if goes_on or not runs else last_looks + 1
        if last_looks == _LAST_LOOKS:
            return runs
        time.sleep(max(_SECONDS, (time.monotonic() - began) * (1 / _PART - 1)))


@contextmanager
def drawn(out: Console, waiting_for: str) -> Iterator[View]:
    """Give a view that draws runs in place on a terminal; what was drawn last stays only after Ctrl-C."""
    seen: dict[tuple[LiveTrace, int, int], tuple[float, RenderableType]] = {}

    def block(run: LiveTrace, rows: int) -> RenderableType:
        key = (run, out.width, rows)
        if key not in seen or seen[key][0] != run.changed_at:
            seen[key] = (run.changed_at, _block(out, run, rows))
        return seen[key][1]

    def view(runs: Sequence[LiveTrace]) -> None:
        out.width = terminal_width(out.file)
        going = [run for run in runs if run.run["status"] == "running"]
        ended = [f"{run.path.name} {run.run['status']}" for run in runs if run not in going]
        rows = (out.height - bool(ended)) // max(1, len(going)) - _OTHER_LINES
        parts = [part for run in going for part in (_heading(run), block(run, rows))]
        if ended:
            parts.insert(0, _line(plain(f"Ended: {', '.join(ended)}", "dim")))
        if not runs:
            parts = [plain(f"Waiting for {waiting_for}")]
        live.update(Group(*parts), refresh=True)

    with Live(console=out, auto_refresh=False, transient=True) as live:
        try:
            yield view
        except KeyboardInterrupt:
            live.transient = False
            raise
        live.update(Text(), refresh=True)  # so that no more is to be removed than fits the terminal


def told(tell: Callable[[Sequence[LiveTrace], Sequence[LiveTrace]], None]) -> View:
    """Return a view that tells of the runs each time that some have a further epoch of recall, and which those are."""
    epochs: dict[LiveTrace, int] = {}

    def view(runs: Sequence[LiveTrace]) -> None:
        further = [run for run in runs if _epochs(run) > epochs.get(run, 0)]
        epochs.update({run: _epochs(run) for run in further})
        if further:
            tell(runs, further)

    return view


def show_blocks(out: Console, runs: Sequence[LiveTrace]) -> None:
    """Print the heading, table and verdicts of each run."""
    for run in runs:
        for part in (_heading(run), _block(out, run), ""):
            out.print(part)


def _epochs(run: LiveTrace) -> int:
    return len(recall_curves(run, held_out_split(run) or train_split(run))[0])


def _heading(run: LiveTrace) -> Text:
    rows = run.classes
    step, epoch = rows["step"].max(), rows["epoch"].max()
    progress = [] if rows.empty else [f"step {step:.0f}", *([f"epoch {epoch:.0f}"] if epoch == epoch else [])]
    silence = time.monotonic() - run.changed_at
    if run.run["status"] == "running" and silence > _SILENCE_TOLD:
        progress.append(f"nothing new for {silence:.0f} s")
    status = str(run.run["status"])
    return _line(
        Text.assemble(
            plain(run.path.name, "bold"),
            plain(f"  {status}", "" if status == "finished" else "bold yellow"),
            plain(f"  {', '.join(progress) or 'no rows yet'}"),
            plain(f"  {run.path}", "dim"),
        )
    )


def _block(out: Console, run: LiveTrace, rows: int | None = None) -> RenderableType:
    ascii_only = out.options.ascii_only
    return Group(class_table(run, out.width, most_rows=rows, ascii_only=ascii_only), *_verdicts(run))


def _verdicts(run: LiveTrace) -> Iterator[Text]:
    for number, finding in enumerate(single(run), start=1):
        verdict = str(finding.verdict)
        value = "" if finding.value is None else f", {measured(finding)}"
        line = plain(f"{number}. {verdict.upper()}: {finding.name.replace('_', ' ')}{value}")
        line.stylize(VERDICT_STYLE[verdict], len("1. "), len("1. ") + len(verdict))
        yield _line(line)


def _line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "crop"
    return text
