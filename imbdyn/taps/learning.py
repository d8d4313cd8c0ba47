"""The lesson: in a watched forward pass, find out where each parameter meets data and how the rows lie there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from imbdyn.taps.experiment import Found, find
from imbdyn.taps.layout import SINGLE
from imbdyn.taps.plan import Plan
from imbdyn.taps.registry import RULES, function_name
from imbdyn.taps.uses import Site


@dataclass
class _Candidate:
    """A result that parameters went into: the place where they meet data, or still a parameter-like value."""

    key: str
    function: Any
    carriers: dict[str, str]
    """Parameter or value to the key of this use of it."""
    may_be_value: bool
    result: Tensor
    names: tuple[str, ...] = ()
    floats: list[float] = field(default_factory=list)
    handle: RemovableHandle | None = None
    resolved: bool = field(default=False)


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
        self._for_now: list[str] = []
        self.ended: set[str] = set()
        """Keys of results that were followed as parameter-like, and have met data as it turned out."""
        self._plan.uses.clear()

    def without_parameters(self, args: Any, kwargs: Any, result: Any) -> None:
        """Note whether what a function without watched parameters returned depends on the batch."""
        if all(id(t) in self._constants for t in _tensors((args, kwargs))):
            for t in _tensors(result):
                self._constants[id(t)] = t  # held, so that its id stays its own

    def candidate(
        self, made: Any, carriers: list[str], keys: list[str], result: Tensor, names: Mapping[int, str]
    ) -> bool:
        """Follow a result; return whether it may be parameter-like: nothing in it is known to depend on the batch."""
        key, function, args, kwargs, _ = made
        value = key in self._plan.forced or all(
            id(t) in self._constants or id(t) in names or id(t) in self._values for t in _tensors((args, kwargs))
        )
        self._candidates.append(_Candidate(key, function, dict(zip(carriers, keys, strict=True)), value, result))
        if value:
            self._values[id(result)] = key
        return value

    def tapped(self, handle: RemovableHandle, site: Site, floats: list[float]) -> None:
        """Complete the last candidate by its tap, which is removed again if it proves to be a value."""
        self._candidates[-1].floats = floats
        self._candidates[-1].handle = handle
        self._candidates[-1].names = tuple(dict.fromkeys(name for _, name in site.names))

    def again(self, names: Iterable[str]) -> None:
        """Count a use that was learned before."""
        self._plan.uses.update(names)

    def resolve(self, output: Any) -> None:
        """Learn from the output of the model, or of one of several forward passes."""
        open_ones = [c for c in self._candidates if not c.resolved]
        found = (
            find(output, [c.result for c in open_ones], self._batch)
            if self._batch > 1
            else [Found(reached=True) for _ in open_ones]
        )
        for candidate, says in zip(open_ones, found, strict=True):
            if says.reached or candidate.may_be_value:
                candidate.resolved = True
                self._decide(candidate, says)

    def end(self) -> None:
        """Name what the experiment did not reach; called when the batch is over."""
        for candidate in self._candidates:
            if not candidate.resolved and not all(_comes_of(carrier, self.ended) for carrier in candidate.carriers):
                self._plan.refuse(
                    candidate.names,
                    f"{function_name(candidate.function)}: the model's output does not depend on its result, so that "
                    "its rows cannot be assigned to samples",
                )
        for key in self._for_now:
            del self._plan.is_value[key]
        self._plan.complete = self._batch > 1 and not self._plan.forced - self._plan.is_value.keys()
        self._candidates.clear()
        self._values.clear()
        self._constants.clear()

    def _decide(self, candidate: _Candidate, says: Found) -> None:
        plan, layout = self._plan, says.layout(self._batch) if self._batch > 1 else None
        if self._batch <= 1 and not candidate.may_be_value:
            layout = SINGLE
        keys = [key for carrier, key in candidate.carriers.items() if not _comes_of(carrier, self.ended)]
        if not keys:  # computed from what has met the data already
            self._drop(candidate)
        elif layout is not None:
            key = keys[0]
            plan.is_value[key], plan.layouts[key] = False, layout
            base = candidate.result._base
            plan.floats[key], plan.of_leaf[key] = candidate.floats, base is not None and base.is_leaf
            if self._batch <= 1:
                self._for_now.append(key)
            own = RULES.get(candidate.function)
            plan.keeps[key] = own is None or own.values
            if not plan.keeps[key]:
                plan.overwrites[key] = False
            for name in candidate.names:
                plan.rule_of[name] = function_name(candidate.function)
                plan.uses[name] += 1
            if candidate.may_be_value:
                self.ended.add(candidate.key)
        elif candidate.may_be_value:
            plan.is_value[keys[0]] = True
            if self._batch <= 1:
                self._for_now.append(keys[0])
            self._drop(candidate)
        else:
            plan.forced.add(keys[0])  # and the next lesson follows it
            self._drop(candidate)

    def _drop(self, candidate: _Candidate) -> None:
        if candidate.handle is not None:
            candidate.handle.remove()


def _comes_of(carrier: str, ended: set[str]) -> bool:
    return any(carrier == key or carrier.startswith(f"{key}#") for key in ended)


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        yield from _tensors(tuple(values.values()))
    elif isinstance(values, Iterable) and isinstance(values, (tuple, list)):
        for value in values:
            yield from _tensors(value)
