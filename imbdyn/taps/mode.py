"""The mode that is entered on a watched step and puts the taps where parameters meet data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from itertools import count
from time import perf_counter
from typing import Any
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from imbdyn.taps.calls import Loose, assigned, is_in_place
from imbdyn.taps.compiled import CompiledTap, CompiledTapOfView, receive_with, site_number
from imbdyn.taps.learning import Lesson
from imbdyn.taps.multi_head_attention import in_the_open
from imbdyn.taps.places import place_of
from imbdyn.taps.plan import Plan
from imbdyn.taps.registry import RULES
from imbdyn.taps.sites import Made, Sites, taken_apart
from imbdyn.taps.uses import Site
from imbdyn.taps.watched import WatchedBatch, tap

_BACKWARD = (Tensor.backward, torch.autograd.backward)

_numbers = count(1)


class Watch(TorchFunctionMode):
    """Watch forward passes: each use of a parameter is handed over in the backward pass that follows.

    A tap is a hook on the result of the function where a parameter meets data: it changes neither values nor graph, so
    training stays bit-identical. In a graph of torch.compile, which cannot hold hooks, it is an identity whose backward
    calls an op.

    Args:
        plan: what was learned of the model; empty at first.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.number = next(_numbers)
        """Compiled into the graphs, so that those of one Monitor do not serve another."""
        self.names: dict[int, str] = {}
        """id of each watched parameter to its name."""
        self.made_by: dict[Tensor, Any] = {}
        """Parameter-like value to its key and how it was made: (key, function, args, kwargs, index)."""
        self.versions: dict[Tensor, int] = {}
        """Parameter-like value to how often it was written to when it was made so."""
        self.counts: dict[str, int] = {}
        """Parameter or parameter-like value to its uses in this batch so far."""
        self.is_value, self.keeps, self.overwrites = plan.is_value, plan.keeps, plan.overwrites
        self.of_leaf = plan.of_leaf
        self.batch: WatchedBatch | None = None
        """The batch that is watched; None while a compiled graph is looked at."""
        self.batch_number = torch.tensor(0, device="cpu")
        """Of that batch; an input of the compiled graphs, which tells what their backward passes belong to."""
        self._batches: WeakValueDictionary[int, WatchedBatch] = WeakValueDictionary()
        self.lesson: Lesson | None = None
        """Set while the model is learned."""
        self._sites = Sites()
        self._plan = plan
        receive_with(self.number, self)

    def begin(self, names: Mapping[int, str], batch: WatchedBatch, lesson: Lesson | None) -> None:
        """Watch another batch."""
        if names != self.names:
            self.names, self._sites = dict(names), Sites()
        self._forget()
        self.batch, self.lesson = batch, lesson
        number = next(_numbers)
        self.batch_number, self._batches[number] = torch.tensor(number, device="cpu"), batch

    def forget_values(self, keys: Set[str]) -> None:
        """Take results that have met data, as a lesson has shown, for parameter-like no longer."""
        for value in [value for value, made in self.made_by.items() if made[0] in keys]:
            del self.made_by[value]

    def end(self) -> None:
        """Forget what belongs to a forward pass; gradients are still taken."""
        self._forget()
        self.lesson = None

    def _forget(self) -> None:
        self.made_by.clear()
        self.versions.clear()
        self.counts.clear()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run `func` as it is, and tap its result if a watched parameter entered it."""
        args, kwargs = tuple(args), dict(kwargs or {})
        if func is F.multi_head_attention_forward:
            with self:
                return in_the_open(*args, **kwargs)
        if torch.compiler.is_compiling():
            if func is Tensor.unflatten:  # Python that torch.compile cannot follow under a mode
                func = torch.unflatten
            return self._watch(func, args, kwargs)
        batch = self.batch
        if batch is None:
            return func(*args, **kwargs)
        if func is torch.autograd.grad or (func in _BACKWARD and kwargs.get("inputs") is not None):
            batch.paused = True  # these gradients do not go into p.grad
            try:
                return func(*args, **kwargs)
            finally:
                batch.paused = False
        if func in _BACKWARD:
            return func(*args, **kwargs)
        return self._watch(func, args, kwargs)

    def _watch(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        carriers: list[str] = []
        if torch.is_grad_enabled():
            self._find(args, carriers)
            if kwargs:
                self._find(tuple(kwargs.values()), carriers)
        lesson = self.lesson
        if not carriers:
            result = func(*args, **kwargs)
            if lesson is not None:
                lesson.ran(func, result)
                lesson.without_gradient(args, kwargs, result, self.names)
            return result
        if func is Tensor.__setitem__ and not torch.compiler.is_compiling():
            self._assign(args, carriers)
            return None
        kept = args
        if lesson is not None:
            self.overwrites[self._next(carriers[0])] = is_in_place(func)
        if self.overwrites.get(self._next(carriers[0])):
            kept = (self._as_it_was(args[0]), *args[1:])
        result = func(*args, **kwargs)
        several = isinstance(result, (tuple, list))
        if lesson is not None:
            lesson.ran(func, result)
        # What no gradient flows through is no use: a look at a shape or a device is not the same when compiled.
        if not any(_differentiable(entry) for entry in (result if several else (result,))):
            if lesson is not None:
                lesson.without_gradient(args, kwargs, result, self.names)
            return result
        if not several and self.made_by and result in self.made_by and any(result is argument for argument in args):
            return result  # `to` and `contiguous` hand back a value that is so already
        keys = []
        for carrier in carriers:
            keys.append(self._next(carrier))
            self.counts[carrier] = self.counts.get(carrier, 0) + 1
        if several:
            made = []
            for index, entry in enumerate(result):
                made.append(self._look_at(func, kept, kwargs, carriers, [f"{k}.{index}" for k in keys], entry, index))
            if torch.compiler.is_compiling() and type(result) in (tuple, list):
                return type(result)(made)
            return result
        return self._look_at(func, kept, kwargs, carriers, keys, result, None)

    def _assign(self, args: tuple[Any, ...], carriers: list[str]) -> None:
        """Run target[index] = value, which returns nothing: its result is the target."""
        target = args[0]
        before = self._as_it_was(target)
        Tensor.__setitem__(*args)
        keys = [self._next(carrier) for carrier in carriers]
        self.counts.update({carrier: self.counts.get(carrier, 0) + 1 for carrier in carriers})
        self._look_at(assigned, (before, *args[1:]), {}, carriers, keys, target, None)

    def _as_it_was(self, target: Tensor) -> Tensor:
        """Return a copy of what is about to be written to, which takes its place as a parameter-like value."""
        copy = target.clone()
        if target in self.made_by:
            self.made_by[copy] = self.made_by.pop(target)
            if self.lesson is not None:
                self.lesson.copied(target, copy)
        return copy

    def _next(self, carrier: str) -> str:
        """Return the key of the coming use of a parameter or parameter-like value."""
        return f"{carrier}#{self.counts.get(carrier, 0)}"

    def _find(self, values: Any, carriers: list[str]) -> None:
        """Append the names of the parameters, and the keys of parameter-like values, among some arguments."""
        for value in values:
            if isinstance(value, Tensor):
                if _is_parameter(value):
                    if id(value) in self.names and self.names[id(value)] not in carriers:
                        carriers.append(self.names[id(value)])
                elif self.made_by and value in self.made_by:
                    if not torch.compiler.is_compiling() and value._version != self.versions.get(value, value._version):
                        self._refuse_written(value)
                    if self.made_by[value][0] not in carriers:
                        carriers.append(self.made_by[value][0])
            elif isinstance(value, (tuple, list)):
                self._find(value, carriers)

    def _look_at(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        carriers: list[str],
        keys: list[str],
        result: Any,
        index: int | None,
    ) -> Any:
        if not _differentiable(result):
            return result
        key = keys[0]
        made = (key, func, args, kwargs, index)
        decided = self.is_value.get(key)
        if decided is True:
            self._is_value(result, made)
            return result
        if self.made_by:  # a tensor's hash is a call of Python
            self.made_by.pop(result, None)  # written to with data, it is a value no more
        if torch.compiler.is_compiling():
            return result if decided is None else self._tap_compiled(made, result)
        started = perf_counter()
        assert self.batch is not None
        if decided is False:
            place = place_of(result, (args, kwargs), in_place=_writes(func))
            self.batch.handles.append(tap(self.batch, *self._site(made, self.keeps[key]), place))
        elif self.lesson is not None:
            place = place_of(result, (args, kwargs), in_place=_writes(func))
            site, loose = self._site(made, keep=True)
            if self.lesson.candidate(made, carriers, keys, result, place, self.names):
                self._is_value(result, made)
            self.batch.handles.append(tap(self.batch, site, loose, place))
            self.lesson.tapped(self.batch.handles[-1], site, loose.floats)
        else:
            self.batch.incomplete.update(name for _, name in self._site(made, keep=False)[0].names)
            self._plan.complete = False
        self.batch.seconds += perf_counter() - started
        return result

    def _is_value(self, result: Tensor, made: Any) -> None:
        self.made_by[result] = made
        if not torch.compiler.is_compiling():
            self.versions[result] = result._version

    def _refuse_written(self, value: Tensor) -> None:
        """Give up the parameters behind a value that was written to without a function that names it."""
        _, names, _ = taken_apart(("", assigned, (value,), {}, None), self.made_by, self.names, keep=False)
        self._plan.refuse(tuple(name for _, name in names), "a value made of it is written to through a view")

    def _site(self, made: Made, keep: bool) -> tuple[Site, Loose]:
        key, func, args, kwargs, index = made
        rule = RULES.get(func)
        if rule is not None and rule.unread is not None:
            unread = rule.unread(*args, **kwargs)
            args = (*args[:1], *[None] * unread, *args[1 + unread :])
        return self._sites.of((key, func, args, kwargs, index), self.made_by, self.names, keep=keep)

    def _tap_compiled(self, made: Any, result: Tensor) -> Tensor:
        key = made[0]
        call, names, loose = taken_apart(made, self.made_by, self.names, keep=self.keeps[key])
        site = site_number(key, call, names)
        function = CompiledTapOfView if self.of_leaf[key] else CompiledTap
        tapped: Tensor = function.apply(  # type: ignore[no-untyped-call]
            result, self.batch_number, self.number, site, tuple(loose.ints), *loose.tensors
        )
        return tapped

    def receive(self, number: int, site: Site, tensors: list[Tensor], ints: list[int], grad_output: Tensor) -> None:
        """Take a gradient of a batch from a compiled graph, in whose memory all of it lies."""
        batch = self._batches.get(number)
        if batch is not None:
            batch.hand_over(site, Loose(tensors, ints, self._plan.floats[site.key]), grad_output, borrowed=True)


def _writes(func: Callable[..., Any]) -> bool:
    return func is assigned or is_in_place(func)


def _differentiable(result: Any) -> bool:
    """Whether a result is a tensor with a gradient, and not a parameter that a function hands back."""
    return isinstance(result, Tensor) and result.requires_grad and not _is_parameter(result)


def _is_parameter(t: Tensor) -> bool:
    """Whether a tensor is a parameter. A plain one is not asked: `isinstance` is a call of Python there."""
    return type(t) is not Tensor and isinstance(t, nn.Parameter)
