"""What the Monitor warned of while a run was made, as run.json keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imbdyn.trace import Trace


def told_problems(trace: Trace) -> list[str]:
    """Return each warning of a run, with how often it came if that was more than once."""
    problems = trace.run.get("problems")
    if not isinstance(problems, Mapping):
        return []
    return [_told(kind, problem if isinstance(problem, Mapping) else {}) for kind, problem in problems.items()]


def _told(kind: str, problem: Mapping[str, object]) -> str:
    message, times = problem.get("message"), problem.get("times")
    often = f" ({times} times)" if isinstance(times, int) and times > 1 else ""
    return f"{message if isinstance(message, str) else kind}{often}"
