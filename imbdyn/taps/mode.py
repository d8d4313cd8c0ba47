"""The mode that is entered on a watched step and puts the taps where parameters meet data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from imbdyn.taps.calls import Node, take_apart
from imbdyn.taps.compiled import CompiledTap, receive_with, site_number
from imbdyn.taps.learning import Lesson
from imbdyn.taps.multi_head_attention import in_the_open
from imbdyn.taps.plan import Plan
from imbdyn.taps.uses import Site
from imbdyn.taps.watched import WatchedBatch, tap

#: Elements of a tensor that is copied without regret.
_SMALL = 4096

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
        self.token = torch.zeros(1)
        """What the compiled op says that it writes to: nobody may drop or move it."""
        self.made_by: dict[Tensor, Any] = {}
        """Parameter-like value to its key and how it was made: (key, function, args, kwargs, index)."""
        self.counts: dict[str, int] = {}
        """Parameter or parameter-like value to its uses in this batch so far."""
        self.is_value, self.keeps = plan.is_value, plan.keeps
        self.batch: WatchedBatch | None = None
        """The batch that is watched; None while a compiled graph is looked at."""
        self.lesson: Lesson | None = None
        """Set while the model is learned."""
        self._plan = plan
        receive_with(self.number, self)

    def begin(self, names: Mapping[int, str], batch: WatchedBatch, lesson: Lesson | None) -> None:
        """Watch another batch."""
        if names != self.names:
            self.names = dict(names)
        self.batch, self.lesson = batch, lesson
        self.made_by.clear()
        self.counts.clear()

    def end(self) -> None:
        """Forget what belongs to a forward pass; gradients are still taken."""
        self.made_by.clear()
        self.counts.clear()
        self.lesson = None

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
        if not carriers:
            result = func(*args, **kwargs)
            if self.lesson is not None:
                self.lesson.without_parameters(args, kwargs, result)
            return result
        keys = []
        for carrier in carriers:
            used = self.counts.get(carrier, 0)
            self.counts[carrier] = used + 1
            keys.append(f"{carrier}#{used}")
        name = getattr(func, "__name__", "")
        if name.endswith("_") and not name.endswith("__") or name.startswith("__i"):
            kept = (args[0].clone(), *args[1:]) if self.keeps.get(keys[0], True) else args
        else:
            kept = args
        result = func(*args, **kwargs)
        if isinstance(result, (tuple, list)):
            made = []
            for index, entry in enumerate(result):
                made.append(self._look_at(func, kept, kwargs, carriers, [f"{k}.{index}" for k in keys], entry, index))
            if torch.compiler.is_compiling() and type(result) in (tuple, list):
                return type(result)(made)
            return result
        return self._look_at(func, kept, kwargs, carriers, keys, result, None)

    def _find(self, values: Any, carriers: list[str]) -> None:
        """Append the names of the parameters, and the keys of parameter-like values, among some arguments."""
        for value in values:
            if isinstance(value, nn.Parameter):
                if id(value) in self.names and self.names[id(value)] not in carriers:
                    carriers.append(self.names[id(value)])
            elif isinstance(value, Tensor):
                if self.made_by and value in self.made_by and self.made_by[value][0] not in carriers:
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
        if not isinstance(result, Tensor) or not result.requires_grad or isinstance(result, nn.Parameter):
            return result
        key = keys[0]
        made = (key, func, args, kwargs, index)
        decided = self.is_value.get(key)
        if decided is True:
            self.made_by[result] = made
            return result
        if torch.compiler.is_compiling():
            return result if decided is None else self._tap_compiled(made, result)
        started = perf_counter()
        assert self.batch is not None
        if decided is False:
            self.batch.handles.append(tap(self.batch, *self._site(made, self.keeps[key]), result))
        elif self.lesson is not None:
            if self.lesson.candidate(made, carriers, keys, result, self.names):
                self.made_by[result] = made
            site, tensors, numbers = self._site(made, keep=True)
            self.lesson.tapped(tap(self.batch, site, tensors, numbers, result), site)
        else:
            self.batch.incomplete.update(name for _, name in self._site(made, keep=False)[0].names)
            self._plan.complete = False
        self.batch.seconds += perf_counter() - started
        return result

    def _take_apart(
        self, made: Any, keep: bool
    ) -> tuple[Node, tuple[tuple[int, str], ...], list[Tensor], list[int]]:
        """Return a call's tree, which of its tensors are watched parameters, its tensors and its integers."""
        _, func, args, kwargs, index = made
        tensors: list[Tensor] = []
        numbers: list[int] = []
        kept = None if keep else self.names
        positional = take_apart(args, self.made_by, tensors, numbers, kept)
        named = take_apart(kwargs, self.made_by, tensors, numbers, kept)
        names = []
        for i, tensor in enumerate(tensors):
            if isinstance(tensor, nn.Parameter) and id(tensor) in self.names:
                names.append((i, self.names[id(tensor)]))
        tensors = [_kept(tensor) for tensor in tensors]
        return ("call", func, positional, named, index), tuple(names), tensors, numbers

    def _site(self, made: Any, keep: bool) -> tuple[Site, list[Tensor], list[int]]:
        call, names, tensors, numbers = self._take_apart(made, keep)
        return Site(made[0], call, names), tensors, numbers

    def _tap_compiled(self, made: Any, result: Tensor) -> Tensor:
        call, names, tensors, numbers = self._take_apart(made, self.keeps[made[0]])
        site = site_number(made[0], call, names)
        tapped: Tensor = CompiledTap.apply(result, self.token, self.number, site, tuple(numbers), *tensors)
        return tapped

    def receive(self, site: Site, tensors: Sequence[Tensor], numbers: Sequence[int], grad_output: Tensor) -> None:
        """Take a gradient from a compiled graph, in whose memory all of it lies."""
        if self.batch is not None:
            self.batch.hand_over(site, tensors, numbers, grad_output, borrowed=True)


def _kept(tensor: Tensor) -> Tensor:
    """Return what is kept of a tensor until the backward pass.

    Copied is what autograd does not watch over, as far as it is small: indices that a loader fills again, running
    statistics that the next forward pass moves.
    """
    if tensor.requires_grad or (tensor.is_floating_point() and tensor.numel() > _SMALL):
        return tensor.detach()
    return tensor.detach().clone()
