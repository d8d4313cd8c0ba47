"""Which parameters are read and how, for run.json; and one warning if not all are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from imbdyn.monitor.model import WatchedModel
from imbdyn.monitor.problems import Problems
from imbdyn.taps import Plan


class Coverage:
    """Keeps what was said of a model's coverage, to say it again when it has changed."""

    def __init__(self, model: WatchedModel, problems: Problems) -> None:
        self._model = model
        self._problems = problems
        self._with_gradient: set[str] = set()
        self._known: tuple[int, ...] = ()

    def note(self, plan: Plan, parameters: Iterable[str]) -> dict[str, Any] | None:
        """Return the field `coverage` of run.json, or None if it is as it was.

        Args:
            plan: what is known of the model.
            parameters: those that have a gradient in this step. The share is of all that ever had one: what the model
                does not use is not to be covered.
        """
        self._with_gradient.update(parameters)
        known = (plan.complete, len(plan.rule_of), len(plan.refused), len(self._with_gradient))
        if known == self._known:
            return None
        self._known = known
        sizes = {name: p.numel() for name, p in self._model.trainable().items()}
        covered = self._with_gradient.intersection(plan.covered())
        reason = {
            name: plan.why_not(name) if name in self._with_gradient else "no gradient comes to it"
            for name in sizes
            if name not in covered
        }
        used = sum(size for name, size in sizes.items() if name in self._with_gradient)
        share = sum(size for name, size in sizes.items() if name in covered) / max(1, used)
        missing = [f"{name} ({why})" for name, why in reason.items() if name in self._with_gradient]
        if missing and plan.complete:  # what is still being learned may be covered yet
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            self._problems.warn(
                "coverage",
                f"class gradients cover {share:.1%} of the trainable parameters; not covered: "
                f"{', '.join(missing[:3])}{more} (run.json lists all)",
            )
        return {
            "share": share,
            "parameters": {
                name: {"covered": name in covered, "rule": plan.rule_of.get(name), "reason": reason.get(name)}
                for name in sizes
            },
        }
