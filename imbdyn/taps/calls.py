"""A call of a torch function, taken apart so that it can be kept, compiled into a graph, and made again.

A call is a tree of plain tuples, all of it constant under torch.compile, beside three flat lists of what is not: its
tensors, and its integers and floats (which may be symbolic there). The first entry of a node says what it is:

    ("tensor", i)       the i-th tensor                 ("int", i)       the i-th integer
    ("absent",)         a tensor that is not kept       ("float", i)     the i-th float
    ("tuple" | "list", nodes)                           ("const", value)
    ("slice", start, stop, step)                        ("dict", keys, nodes)
    ("call", function, args, kwargs, index)

The last is a parameter-like value: made by a function, `index` of its results (None: its only one), from parameters
and whatever else does not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Node = tuple[Any, ...]

#: Functions whose derivative keeps inner products: they move elements or leave some out, but repeat none; a conversion
#: to another precision has the identity as its derivative.
_MOVE = ("reshape", "flatten", "unflatten", "permute", "transpose", "t", "movedim", "swapaxes", "squeeze", "unsqueeze")
_LEAVE_OUT = ("clone", "chunk", "split", "unbind", "select", "narrow")
_METHODS = ("view", "contiguous", "to", "float", "double", "half", "bfloat16")
_ISOMETRIES = {
    *(getattr(owner, name) for owner in (torch, Tensor) for name in (*_MOVE, *_LEAVE_OUT)),
    *(getattr(Tensor, name) for name in _METHODS),
    *(getattr(Tensor, name).__get__ for name in ("T", "mT")),
}


class Loose(NamedTuple):
    """What a call consists of beside its tree."""

    tensors: list[Tensor]
    ints: list[int]
    floats: list[float]


def take_apart(value: Any, made_by: Mapping[Tensor, Node], loose: Loose, names: Mapping[int, str] | None) -> Node:
    """Return the node of an argument; its tensors and numbers are appended to `loose`.

    Args:
        value: an argument of a torch function.
        made_by: how each parameter-like value was made: (key, function, args, kwargs, index).
        loose: appended to.
        names: ids of the tensors that are kept; None keeps all. What parameter-like values are made of is always kept.
    """
    if isinstance(value, Tensor):
        if made_by and value in made_by:
            _, function, args, kwargs, index = made_by[value]
            positional = take_apart(args, made_by, loose, None)
            return ("call", function, positional, take_apart(kwargs, made_by, loose, None), index)
        if names is not None and not (isinstance(value, nn.Parameter) and id(value) in names):
            return ("absent",)
        loose.tensors.append(value)
        return ("tensor", len(loose.tensors) - 1)
    if type(value) is int:
        loose.ints.append(value)
        return ("int", len(loose.ints) - 1)
    if type(value) is float:
        loose.floats.append(value)
        return ("float", len(loose.floats) - 1)
    if isinstance(value, (tuple, list)):
        nodes = tuple([take_apart(entry, made_by, loose, names) for entry in value])
        return ("list" if isinstance(value, list) else "tuple", nodes)
    if isinstance(value, dict):
        nodes = tuple([take_apart(entry, made_by, loose, names) for entry in value.values()])
        return ("dict", tuple(value), nodes)
    if isinstance(value, slice):
        ends = take_apart((value.start, value.stop, value.step), made_by, loose, names)
        return ("slice", *ends[1])
    return ("const", value)


def put_together(node: Node, loose: Loose, make: Callable[[Node], Any]) -> Any:
    """Return the argument of a node; `make` is asked for the parameter-like values in it."""
    kind = node[0]
    if kind == "tuple":  # the arguments of a call, most of which are no trees themselves
        tensors = loose.tensors
        return tuple([tensors[n[1]] if n[0] == "tensor" else put_together(n, loose, make) for n in node[1]])
    if kind == "tensor":
        return loose.tensors[node[1]]
    if kind == "int":
        return loose.ints[node[1]]
    if kind == "float":
        return loose.floats[node[1]]
    if kind == "const":
        return node[1]
    if kind == "absent":
        return None
    if kind == "call":
        return make(node)
    if kind == "dict":
        return {key: put_together(entry, loose, make) for key, entry in zip(node[1], node[2], strict=True)}
    entries = [put_together(entry, loose, make) for entry in (node[1:] if kind == "slice" else node[1])]
    return slice(*entries) if kind == "slice" else entries


def run(node: Node, loose: Loose) -> Any:
    """Make a "call" node's value again, its parameter-like arguments too."""

    def make(inner: Node) -> Any:
        return run(inner, loose)

    _, function, args, kwargs, index = node
    result = function(*put_together(args, loose, make), **put_together(kwargs, loose, make))
    return result if index is None else result[index]


def tensors_in(node: Node) -> list[int]:
    """Return the numbers of the tensors that a node is made of."""
    if node[0] == "tensor":
        return [node[1]]
    return [i for entry in _children(node) for i in tensors_in(entry)]


def direct_tensors(node: Node) -> list[int]:
    """Return the numbers of the tensors that enter a call themselves, not through a parameter-like value."""
    if node[0] == "tensor":
        return [node[1]]
    if node[0] == "call":
        return []
    return [i for entry in _children(node) for i in direct_tensors(entry)]


def _children(node: Node) -> tuple[Node, ...]:
    kind = node[0]
    if kind in ("tuple", "list"):
        return tuple(node[1])
    if kind == "dict":
        return tuple(node[2])
    if kind == "slice":
        return node[1:]
    return node[2:4] if kind == "call" else ()


def is_isometry(node: Node) -> bool:
    """Whether inner products of gradients of a parameter-like value are those of its one parameter's gradients."""
    if node[0] == "tensor":
        return True
    if node[0] != "call":
        return False
    _, function, (_, args), kwargs, _ = node
    if not args or any(tensors_in(entry) for entry in (*args[1:], *kwargs[2])):
        return False
    plain = _is_basic(args[1]) if function is Tensor.__getitem__ else function in _ISOMETRIES
    return plain and is_isometry(args[0])


def _is_basic(index: Node) -> bool:
    """Whether an index is of integers, slices, ... and None: any other may hold an entry twice."""
    return all(
        kind in ("int", "slice") or (kind == "const" and (rest[0] is None or rest[0] is ...))
        for kind, *rest in (index[1] if index[0] == "tuple" else (index,))
    )


def is_in_place(function: Callable[..., Any]) -> bool:
    """Whether a function writes its result into its first argument, whose value a rule may need as it was."""
    name = getattr(function, "__name__", "")
    return (name.startswith("__i") and hasattr(Tensor, name)) or (name.endswith("_") and not name.endswith("__"))


def assigned(target: Tensor, index: Any, value: Any) -> Tensor:
    """`target[index] = value`, as a function of what `target` was."""
    target = target.clone()
    target[index] = value
    return target
