"""From the values of a TOML file to a dataclass; a mistake is one sentence that names the key."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from imbdyn.experiments.errors import ConfigError

T = TypeVar("T")


def build(kind: type[T], values: Mapping[str, Any], section: str, nearest_key: Callable[[str], str]) -> T:
    """Make the dataclass `kind` from the keys of the table [section].

    Args:
        kind: a dataclass whose fields are int, float, str, bool, a tuple of one of them, a dict, or one of
            these or None.
        nearest_key: the valid key, in whatever section, that is most like one that is not.

    Raises: ConfigError for an unknown key, a missing one, or a value of another type or out of range.
    """
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            raise ConfigError(
                f"unknown key {section}.{key}; the nearest valid one is {nearest_key(f'{section}.{key}')}"
            )
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"{section}.{field.name} is missing: it must be {_words(hints[field.name])}")
    return kind(**{name: checked(hints[name], values[name], f"{section}.{name}") for name in names if name in values})


def checked(kind: Any, value: Any, key: str) -> Any:
    """Return `value` as a `kind`. Raises: ConfigError if it is something else."""
    if get_origin(kind) in (Union, types.UnionType):
        (kind,) = (part for part in get_args(kind) if part is not types.NoneType)
    if get_origin(kind) is tuple:
        if isinstance(value, list):
            return tuple(checked(get_args(kind)[0], item, f"{key}[{i}]") for i, item in enumerate(value))
    elif get_origin(kind) is dict:
        if isinstance(value, dict):
            return value
    elif kind is bool or isinstance(value, bool):  # bool is an int in Python, not in TOML
        if kind is bool and isinstance(value, bool):
            return value
    elif isinstance(value, (int, float) if kind is float else kind):  # an integer is a fine float
        return kind(value)
    raise ConfigError(f"{key} must be {_words(kind)}, got {shown(value)}")


def shown(value: Any) -> str:
    """Return a value of a TOML file in words: its type, and what it is."""
    return f"{_TYPES.get(type(value), type(value).__name__)} ({value!r})"


_TYPES = {
    int: "an integer",
    float: "a number",
    str: "a string",
    bool: "a boolean",
    list: "an array",
    tuple: "an array",
    dict: "a table",
}


def _words(kind: Any) -> str:
    if get_origin(kind) in (Union, types.UnionType):
        (kind,) = (part for part in get_args(kind) if part is not types.NoneType)
    return _TYPES[get_origin(kind) or kind]
