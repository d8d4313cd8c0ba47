"""What runs are called beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imbdyn.trace import Trace


def run_names(traces: Sequence[Trace]) -> list[str]:
    """Return short names that tell the runs apart: those of their folders, with those above where they are alike."""
    parts = [tuple(part for part in trace.path.parts if part not in ("/", ".")) for trace in traces]
    paths = [path or (str(trace.path),) for path, trace in zip(parts, traces, strict=True)]
    depth = 1
    while depth < max(map(len, paths)) and len({path[-depth:] for path in paths}) < len(set(paths)):
        depth += 1
    names = ["/".join(path[-depth:]) for path in paths]
    return [name if names.count(name) == 1 else f"{name} ({i + 1})" for i, name in enumerate(names)]
