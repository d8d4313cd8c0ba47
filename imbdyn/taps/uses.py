"""One use of a parameter in the forward pass, as it is known in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from imbdyn.taps.calls import (
    Loose,
    Node,
    direct_tensors,
    is_in_place,
    is_isometry,
    put_together,
    run,
    tensors_in,
)
from imbdyn.taps.layout import Layout
from imbdyn.taps.parts import Part
from imbdyn.taps.registry import RULES, NotCovered


@dataclass(frozen=True)
class Site:
    """Where a parameter meets data: everything about a watched call but its tensors and integers."""

    key: str
    """Which use it is, "NAME#k" for the k-th of the parameter NAME in a batch (#k.j: through values made of it)."""
    call: Node
    """The call, in the form of `imbdyn.taps.calls`."""
    names: tuple[tuple[int, str], ...]
    """Number of each tensor of the call that is a watched parameter, and its name."""

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The watched parameters of the call."""
        return tuple(dict.fromkeys(name for _, name in self.names))

    @cached_property
    def name_of(self) -> dict[int, str]:
        """`names` as a dict."""
        return dict(self.names)

    @cached_property
    def direct(self) -> frozenset[int]:
        """Numbers of the tensors that enter the call themselves, not through a parameter-like value."""
        return frozenset(direct_tensors(self.call[2]) + direct_tensors(self.call[3]))


@dataclass
class Again:
    """A watched call without a rule: it is run again, and its class gradients are made one by one."""

    result: Tensor
    argument: Tensor

    def gradient(self, grad_output: Tensor) -> Tensor:
        """Return the vector-Jacobian product, in the shape of the argument."""
        (gradient,) = torch.autograd.grad(
            self.result, self.argument, grad_output, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return gradient.to_dense() if gradient.is_sparse else gradient


@dataclass
class Source:
    """From the class gradients of an argument of a watched function to those of the parameters behind it."""

    shape: torch.Size
    """Of the argument."""
    parameters: tuple[str, ...]
    isometric: bool
    """Whether inner products of the argument's class gradients are those of its only parameter's: it is the parameter
    itself, or holds its entries and is the only way in which it is used (two slices are no two uses of one weight)."""
    value: Tensor | None = None
    """The argument with its graph, where it is not the parameter itself."""
    leaves: tuple[Tensor, ...] = ()
    """What it was computed from: a parameter for each place where one went in."""
    leaf_names: tuple[str, ...] = ()

    def pull_back(self, gradient: Tensor) -> dict[str, Tensor]:
        """Return each parameter's gradient for one of the argument [*shape]."""
        if self.value is None:
            return {self.parameters[0]: gradient}
        pulled = torch.autograd.grad(
            self.value,
            self.leaves,
            gradient.to(self.value.dtype),
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        total: dict[str, Tensor] = {}
        for name, part in zip(self.leaf_names, pulled, strict=True):
            total[name] = total[name] + part if name in total else part
        return total


@dataclass
class Use:
    """A watched call with the gradient of its result: what the rules make parts of."""

    site: Site
    layout: Layout
    batch: int
    loose: Loose
    """The tensors and numbers of the call."""
    grad_output: Tensor
    borrowed: bool = False
    """Whether the memory of its tensors is somebody else's, once the backward pass goes on."""
    only: bool = False
    """Whether its parameters are used nowhere else."""

    def keep(self) -> None:
        """Make the tensors its own."""
        if self.borrowed:
            self.loose = self.loose._replace(tensors=[t.clone() for t in self.loose.tensors])
            self.grad_output = self.grad_output.clone()
            self.borrowed = False

    def parts(self) -> Iterator[tuple[Source, Callable[[], Part | Again]]]:
        """Yield what each watched argument's gradient is made of, with the way to its parameters.

        Raises:
            NotCovered: if a rule cannot read this use.
        """
        _, function, args, kwargs, _ = self.site.call
        names = self.site.name_of
        sources: dict[int, Source] = {}
        arguments: list[Tensor] = []

        def given(source: Source, argument: Tensor) -> Tensor:
            sources[id(argument)] = source
            arguments.append(argument)
            return argument

        def make(node: Node) -> Tensor:
            inside = [i for i in dict.fromkeys(tensors_in(node)) if i in names]
            leaves = [t.detach().requires_grad_() if i in names else t for i, t in enumerate(self.loose.tensors)]
            with torch.enable_grad(), _nothing_random(self.grad_output.device):
                value: Tensor = run(node, self.loose._replace(tensors=leaves))
            if not inside or not value.requires_grad:
                return value.detach()
            source = Source(
                value.shape,
                tuple(dict.fromkeys(names[i] for i in inside)),
                self.only and len(inside) == 1 and is_isometry(node),
                value,
                tuple(leaves[i] for i in inside),
                tuple(names[i] for i in inside),
            )
            return given(source, value.detach())

        own = RULES.get(function)
        # A rule only reads them, and what the taps have kept are tensors of nobody else's: no need for others.
        own_tensors = own is not None and not self.borrowed
        plain: list[Tensor] = []
        for i, tensor in enumerate(self.loose.tensors):
            argument = tensor if own_tensors and not tensor.requires_grad else tensor.detach()
            if i in names and i in self.site.direct:
                given(Source(tensor.shape, (names[i],), True), argument)
            plain.append(argument)
        detached = self.loose._replace(tensors=plain)
        called = put_together(args, detached, make), put_together(kwargs, detached, make)
        if own is not None:
            for yielded, part in own.function(self.grad_output, *called[0], **called[1]):
                source = sources.get(id(yielded))
                if source is None:
                    continue
                if self.layout.axis > 0:  # not where the batch is as a rule: it may be where the form has none
                    made = part()
                    if not made.fits(self.layout):
                        continue
                    part = partial(_same, made)
                del sources[id(yielded)]
                yield source, part
        if sources:
            yield from self._again(function, called, sources, [a for a in arguments if id(a) in sources])

    def _again(
        self,
        function: Callable[..., Any],
        called: tuple[tuple[Any, ...], dict[str, Any]],
        sources: dict[int, Source],
        arguments: list[Tensor],
    ) -> Iterator[tuple[Source, Callable[[], Again]]]:
        with torch.enable_grad(), _nothing_random(self.grad_output.device):
            for argument in arguments:
                argument.requires_grad_()
            positional = called[0]
            if is_in_place(function):
                positional = (positional[0].clone(), *positional[1:])
            result = function(*positional, **called[1])
        index = self.site.call[4]
        result = result if index is None else result[index]
        for argument in arguments:
            yield sources[id(argument)], partial(Again, result, argument)


def _same(part: Part) -> Part:
    return part


@contextmanager
def _nothing_random(device: torch.device) -> Iterator[None]:
    """Refuse a call that draws random numbers, and leave the generators as they were: training goes on with them."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        before = _random_states(device)
        yield
        if any(not torch.equal(a, b) for a, b in zip(before, _random_states(device), strict=True)):
            raise NotCovered("random numbers, which cannot be drawn again")


def _random_states(device: torch.device) -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]
