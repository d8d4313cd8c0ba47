"""The lesson: in a watched forward pass, find out where each parameter meets data and how the rows lie there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from imbdyn.taps.experiment import Experiment, Found, Unmixed
from imbdyn.taps.layout import SINGLE, Layout
from imbdyn.taps.places import Place, tensors_of
from imbdyn.taps.plan import Plan
from imbdyn.taps.registry import RULES, function_name
from imbdyn.taps.uses import Site

_NOT_OF_OUTPUT = (
    "the model's output does not depend on its result (a penalty, or a forward pass of other samples than the labels')"
)


@dataclass
class _Candidate:
    """A result that parameters went into: the place where they meet data, or still a parameter-like value."""

    key: str
    function: Any
    carriers: dict[str, str]
    """Parameter or value to the key of this use of it."""
    may_be_value: bool
    result: Tensor | None
    """Held where it may be a value, which is known by its id."""
    of_leaf: bool
    """Whether it is a view of a parameter itself."""
    found: Found
    names: tuple[str, ...] = ()
    """Every parameter in it, as often as it went in."""
    floats: list[float] = field(default_factory=list)
    handle: RemovableHandle | None = None
    resolved: bool = False


class Lesson:
    """Follows one forward pass; `resolve` then learns from the model's output.

    Args:
        plan: told what was learned.
        module: its buffers and frozen parameters do not depend on the batch.
        batch: N. One sample cannot show how rows lie: what is then decided holds for this batch only.
    """

    def __init__(self, plan: Plan, module: nn.Module, batch: int) -> None:
        self._plan = plan
        self._batch = batch
        self._constants: dict[int, Tensor] = {
            id(t): t for t in (*module.buffers(), *module.parameters()) if not t.requires_grad
        }
        self._candidates: list[_Candidate] = []
        self._values: dict[int, str] = {}
        self._copies: list[Tensor] = []
        self._for_now: list[str] = []
        self._unmixed = Unmixed()
        self._experiment = Experiment(batch) if batch > 1 else None
        self.ended: set[str] = set()
        """Keys of results that were followed as parameter-like, and have met data as it turned out."""
        self._waiting = False
        """Whether something is left to the next lesson."""

    def ran(self, function: Any, result: Any) -> None:
        """Take note of any function that ran."""
        self._unmixed.look_at(function, result)

    def without_gradient(self, args: Any, kwargs: Any, result: Any, names: Mapping[int, str]) -> None:
        """Note whether a result that no gradient leads from to a watched parameter depends on the batch."""
        if self._without_data((args, kwargs), names):
            for t in tensors_of(result):
                self._constants[id(t)] = t  # held, so that its id stays its own

    def copied(self, value: Tensor, copy: Tensor) -> None:
        """Take the copy of a value for the value, which is about to be written to."""
        self._values[id(copy)] = self._values.pop(id(value), "")
        self._copies.append(copy)

    def candidate(
        self, made: Any, carriers: list[str], keys: list[str], result: Tensor, place: Place, names: Mapping[int, str]
    ) -> bool:
        """Follow a result; return whether it may be parameter-like: nothing in it is known to depend on the batch."""
        key, function, args, kwargs, _ = made
        value = key in self._plan.forced or self._without_data((args, kwargs), names)
        found = Found(reached=True) if self._experiment is None else self._experiment.ask(place)
        of_leaf = result._base is not None and result._base.is_leaf
        self._candidates.append(
            _Candidate(
                key,
                function,
                dict(zip(carriers, keys, strict=True)),
                value,
                result if value else None,
                of_leaf,
                found,
            )
        )
        if value:
            self._values[id(result)] = key
        return value

    def tapped(self, handle: RemovableHandle, site: Site, floats: list[float]) -> None:
        """Complete the last candidate by its tap, which is removed again if it proves to be a value."""
        self._candidates[-1].floats = floats
        self._candidates[-1].handle = handle
        self._candidates[-1].names = tuple(name for _, name in site.names)

    def resolve(self, output: Any) -> None:
        """Learn from the output of the model, or of one of several forward passes."""
        if self._experiment is not None:
            self._unmixed.on = True
            try:
                self._experiment.run(output)
            finally:
                self._unmixed.on = False
        for candidate in self._candidates:
            says = candidate.found
            if not candidate.resolved and (says.reached or candidate.may_be_value):
                candidate.resolved = True
                if self._experiment is not None:
                    self._experiment.answered(says)
                self._decide(candidate, says)

    def end(self) -> None:
        """Give up, or leave to the next lesson, what the experiment did not reach; called when the batch is over."""
        plan = self._plan
        plan.lessons += self._batch > 1
        for candidate in self._candidates:
            if candidate.resolved:
                continue
            if candidate.found.depends and plan.patient:
                self._waiting = True
            elif self._batch > 1:
                plan.is_value[candidate.key], plan.keeps[candidate.key] = False, False
                why = "no gradient reaches its result" if candidate.found.depends else _NOT_OF_OUTPUT
                reason = f"{function_name(candidate.function)}: {why}, so that its rows are nobody's"
                plan.unassigned[candidate.key] = reason
                plan.unreached.update(dict.fromkeys(candidate.names, reason))
                if candidate.key in plan.unread:
                    plan.refuse(candidate.names, reason)
        for key in self._for_now:
            plan.is_value.pop(key, None)
        plan.complete = self._batch > 1 and not self._waiting and not plan.forced - plan.is_value.keys()
        plan.unread.clear()
        self._unmixed.end()
        if self._experiment is not None:
            self._experiment.end()
        self._candidates.clear()
        self._values.clear()
        self._copies.clear()
        self._constants.clear()

    def _without_data(self, values: Any, names: Mapping[int, str]) -> bool:
        """Whether nothing among some arguments is known to depend on the batch."""
        return all(id(t) in self._constants or id(t) in names or id(t) in self._values for t in tensors_of(values))

    def _decide(self, candidate: _Candidate, says: Found) -> None:
        plan, key = self._plan, candidate.key
        met = [carrier for carrier in candidate.carriers if _comes_of(carrier, self.ended)]
        if met:  # made of what has met the data already; a parameter beside that is seen alone in the next lesson
            self._waiting |= len(met) < len(candidate.carriers)
            self._drop(candidate)
            return
        layout = says.layout(self._batch, beyond_doubt=self._without_doubt(candidate)) if self._batch > 1 else None
        if self._batch <= 1 and not candidate.may_be_value:
            layout = SINGLE
        if layout is not None:
            self._is_use(candidate, layout)
            self.ended.add(key)
        elif candidate.may_be_value:
            plan.is_value[key] = True
            self._drop(candidate)
        else:
            plan.forced.add(key)  # and the next lesson follows it
            self._drop(candidate)
            return
        if self._batch <= 1:
            self._for_now.append(key)

    def _without_doubt(self, candidate: _Candidate) -> bool:
        """Whether data would have to have come in unseen, as made from a list inside of the batch."""
        return candidate.may_be_value and candidate.key not in self._plan.forced

    def _is_use(self, candidate: _Candidate, layout: Layout) -> None:
        plan, key = self._plan, candidate.key
        if key not in plan.layouts:
            plan.uses.update(candidate.names)
        plan.is_value[key], plan.layouts[key] = False, layout
        plan.floats[key], plan.of_leaf[key] = candidate.floats, candidate.of_leaf
        own = RULES.get(candidate.function)
        plan.keeps[key] = own is None or own.values
        if not plan.keeps[key]:
            plan.overwrites[key] = False
        for name in candidate.names:
            plan.rule_of[name] = function_name(candidate.function)

    def _drop(self, candidate: _Candidate) -> None:
        if candidate.handle is not None:
            candidate.handle.remove()


def _comes_of(carrier: str, ended: set[str]) -> bool:
    return any(carrier == key or carrier.startswith(f"{key}#") for key in ended)
