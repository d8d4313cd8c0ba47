"""The sites of a model, found again from batch to batch: taking every call apart anew would show in small networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from imbdyn.taps.calls import Loose, Node, take_apart
from imbdyn.taps.uses import Site

#: Elements of a tensor that is copied without regret.
_SMALL = 4096

#: A watched call: its key, the function, its arguments, and which of its results is meant (None: the only one).
Made = tuple[str, Callable[..., Any], tuple[Any, ...], dict[str, Any], int | None]


@dataclass(frozen=True)
class _Known:
    """A call as it was in an earlier batch."""

    site: Site
    keep: bool
    """Whether tensors with data in them are kept."""
    function: Callable[..., Any]
    count: int
    """Number of positional arguments."""
    keywords: tuple[str, ...]
    entries: tuple[Any, ...]
    """Of all arguments: watched parameters and constants, as they must be again; _KEPT or _DROPPED for data."""
    ints: list[int]
    floats: list[float]

    def loose(self, made: Made, values: Mapping[Tensor, Any], names: Mapping[int, str]) -> Loose | None:
        """Return the tensors and numbers of this call if it is the same but for its data."""
        _, function, args, kwargs, _ = made
        if function is not self.function or len(args) != self.count or tuple(kwargs) != self.keywords:
            return None
        kept = []
        for value, entry in zip((*args, *kwargs.values()), self.entries, strict=True):
            if entry is _KEPT or entry is _DROPPED:
                if not isinstance(value, Tensor) or id(value) in names or (values and value in values):
                    return None
                if entry is _KEPT:
                    kept.append(_kept(value))
            elif isinstance(entry, Tensor):
                if value is not entry or id(value) not in names:
                    return None
                kept.append(value.detach())
            elif type(value) is not type(entry) or value != entry:
                return None
        return Loose(kept, self.ints, self.floats)


class _Mark:
    """Stands for a tensor with data in it."""


_KEPT, _DROPPED = _Mark(), _Mark()


class Sites:
    """Makes the site of each watched call, once."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def of(
        self, made: Made, values: Mapping[Tensor, Any], names: Mapping[int, str], *, keep: bool
    ) -> tuple[Site, Loose]:
        """Return the site of a call, and its tensors and numbers.

        Args:
            made: the call.
            values: how each parameter-like value was made.
            names: of the watched parameters, by id.
            keep: whether its tensors that are no parameters are kept.
        """
        known = self._known.get(made[0])
        if known is not None and known.keep == keep:
            loose = known.loose(made, values, names)
            if loose is not None:
                return known.site, loose
        call, parameters, loose = taken_apart(made, values, names, keep=keep)
        site = Site(made[0], call, parameters)
        entries = tuple([_entry(value, values, names, keep) for value in (*made[2], *made[3].values())])
        if not any(entry is None for entry in entries):
            remembered = tuple([entry[0] for entry in entries if entry is not None])
            self._known[made[0]] = _Known(
                site, keep, made[1], len(made[2]), tuple(made[3]), remembered, loose.ints, loose.floats
            )
        return site, loose


def taken_apart(
    made: Made, values: Mapping[Tensor, Any], names: Mapping[int, str], *, keep: bool
) -> tuple[Node, tuple[tuple[int, str], ...], Loose]:
    """Return a call's tree, which of its tensors are watched parameters, and its tensors and numbers."""
    _, function, args, kwargs, index = made
    loose = Loose([], [], [])
    kept = None if keep else names
    positional = take_apart(args, values, loose, kept)
    named = take_apart(kwargs, values, loose, kept)
    parameters = []
    for i, tensor in enumerate(loose.tensors):
        if isinstance(tensor, nn.Parameter) and id(tensor) in names:
            parameters.append((i, names[id(tensor)]))
    loose = Loose([_kept(tensor) for tensor in loose.tensors], loose.ints, loose.floats)
    return ("call", function, positional, named, index), tuple(parameters), loose


def _entry(value: Any, values: Mapping[Tensor, Any], names: Mapping[int, str], keep: bool) -> tuple[Any] | None:
    """Return what is remembered of an argument; None if it has to be taken apart each time."""
    if isinstance(value, Tensor):
        if values and value in values:
            return None
        return (value,) if id(value) in names else (_KEPT if keep else _DROPPED,)
    if isinstance(value, tuple):
        return (value,) if all(type(entry) in (int, float, bool) for entry in value) else None
    return (value,) if value is None or isinstance(value, (bool, int, float, str, torch.dtype)) else None


def _kept(tensor: Tensor) -> Tensor:
    """Return what is kept of a tensor until the backward pass.

    Copied is what autograd does not watch over, as far as it is small: indices that a loader fills again, running
    statistics that the next forward pass moves.
    """
    if tensor.requires_grad or (tensor.is_floating_point() and tensor.numel() > _SMALL):
        return tensor.detach()
    return tensor.clone()
