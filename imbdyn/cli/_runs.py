"""Open the traces that a command is given: what `show` and `report` have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from imbdyn.cli._errors import UserError

if TYPE_CHECKING:
    from imbdyn.trace import LiveTrace, Trace

#: What a Monitor says of a run, and a report needs.
_NEEDED = ("class_names", "class_counts", "config", "overhead")


def open_runs(places: Sequence[str]) -> list[Trace]:
    """Return the traces at some places, each a trace, a folder of traces, the URI of one, or a pattern.

    Raises: UserError if there is none, if one cannot be read, if several ranks wrote it, or no Monitor.
    """
    from imbdyn.trace import open_trace

    with _mistakes_told():
        traces = [open_trace(run) for place in places for run in _places(place)]
    for trace in traces:
        _check(trace)
    return traces


class LiveRuns:
    """The runs at places as `open_runs` takes them, which may begin, and go on, while one looks."""

    def __init__(self, places: Sequence[str]) -> None:
        self._places = places
        self._runs: dict[str, LiveTrace] = {}

    def look(self) -> list[LiveTrace]:
        """Return the runs that are there now, as they are now; none if none has begun.

        Raises: UserError as open_runs, but for a place where there is nothing yet.
        """
        from imbdyn.trace import LiveTrace, NoTraceError

        found: dict[str, LiveTrace] = {}
        for place in self._places:
            with _mistakes_told(), suppress(NoTraceError):
                for run in _places(place):
                    if run in self._runs:
                        self._runs[run].refresh()
                    found[run] = self._runs.get(run) or LiveTrace(run)
        self._runs = found
        # A Monitor says what it trains a moment after its run.json is there.
        traces = [trace for trace in found.values() if trace.run["status"] != "running" or not _missing(trace)]
        for trace in traces:
            _check(trace)
        return traces


@contextmanager
def _mistakes_told() -> Iterator[None]:
    from imbdyn.trace import TraceError

    try:
        yield
    except (TraceError, OSError) as error:
        raise UserError(str(error)) from error


def _check(trace: Trace) -> None:
    from imbdyn.findings.groups import check_one_rank

    with _mistakes_told():
        check_one_rank(trace)
    if missing := _missing(trace):
        raise UserError(f"{trace.path} was not written by a Monitor: its run.json has no {', '.join(missing)}")


def _missing(trace: Trace) -> list[str]:
    return [key for key in _NEEDED if key not in trace.run]


def _places(place: str) -> list[str]:
    """Return the places of the traces that a place stands for: itself, or all that are below, or match."""
    from imbdyn.trace.several import matches

    path = Path(place)
    below = [] if (path / "run.json").exists() else sorted(record.parent for record in path.rglob("run.json"))
    return [str(run) for run in below] or matches(place)
