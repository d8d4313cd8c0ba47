"""Open the traces that a command is given: what `show` and `report` have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imbdyn.cli._errors import UserError

if TYPE_CHECKING:
    from imbdyn.trace import Trace


def open_runs(places: Sequence[str]) -> list[Trace]:
    """Return the traces at some places, each a trace, a folder of traces, the URI of one, or a pattern.

    Raises: UserError if there is none, if one cannot be read, if several ranks wrote it, or no Monitor.
    """
    from imbdyn.findings.groups import check_one_rank
    from imbdyn.trace import TraceError

    try:
        traces = [trace for place in places for trace in _traces(place)]
        for trace in traces:
            check_one_rank(trace)
    except (TraceError, OSError) as error:
        raise UserError(str(error)) from error
    for trace in traces:
        missing = [key for key in ("class_names", "class_counts", "config", "overhead") if key not in trace.run]
        if missing:
            raise UserError(f"{trace.path} was not written by a Monitor: its run.json has no {', '.join(missing)}")
    return traces


def _traces(place: str) -> list[Trace]:
    """Return the trace at a place, or those that it stands for."""
    from imbdyn.trace import TraceSet, open_trace

    path = Path(place)
    below = [] if (path / "run.json").exists() else sorted(record.parent for record in path.rglob("run.json"))
    opened = [open_trace(run) for run in below] or [open_trace(place)]
    return [trace for found in opened for trace in (found.runs.values() if isinstance(found, TraceSet) else [found])]
