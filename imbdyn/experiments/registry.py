"""Things that a configuration chooses by name: those that come with imbdyn, and a user's own by import path.

A thing is a frozen dataclass whose fields are the keys of its section in the TOML file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from imbdyn.experiments.errors import ConfigError

T = TypeVar("T")


class Registry(Generic[T]):
    """The things that one key of the configuration can name.

    Args:
        key: the key that names them, "model.name" say.
        base: their base class.
        known: where each is, "module:class". A module is imported when it is asked for.
        by_prefix: the class that stands for every name "PREFIX:...".
        wrapper: the class that stands for what a user's import path names, if that is no subclass of `base`.
    """

    def __init__(
        self,
        key: str,
        base: type[Any],
        known: Mapping[str, str],
        *,
        by_prefix: Mapping[str, str] | None = None,
        wrapper: str | None = None,
    ) -> None:
        self.key = key
        self.section, self.selector = key.split(".")
        self._base = base
        self._known = dict(known)
        self._by_prefix = dict(by_prefix or {})
        self._wrapper = wrapper

    @property
    def names(self) -> list[str]:
        """The names that need no import path."""
        return list(self._known)

    def find(self, name: str) -> type[T]:
        """Return the dataclass that `name` stands for.

        Raises: ConfigError if there is none, or if an import path cannot be imported or names something else.
        """
        if name in self._known:
            return self._builtin(self._known[name])
        prefix, colon, _ = name.partition(":")
        if prefix in self._by_prefix and colon:
            return self._builtin(self._by_prefix[prefix])
        if not colon:
            known = [*self._known, *(f"{prefix}:NAME" for prefix in self._by_prefix)]
            raise ConfigError(
                f"unknown {self.key} {name!r}{nearest(name, self._known)}; it is {', '.join(known)} or MODULE:ATTRIBUTE"
            )
        found = imported(name, self.key)
        if isinstance(found, type) and issubclass(found, self._base) and is_dataclass(found):
            return cast("type[T]", found)
        if self._wrapper is None:
            raise ConfigError(
                f"{self.key} {name!r} must be a dataclass derived from {self._base.__module__}.{self._base.__name__}"
            )
        return self._builtin(self._wrapper)

    def _builtin(self, path: str) -> type[T]:
        module, attribute = path.split(":")
        return cast("type[T]", getattr(import_module(module), attribute))


def imported(path: str, key: str) -> Any:
    """Return what "module:attribute" names; the current folder is searched last.

    Raises: ConfigError, which names `key`, if it cannot be imported.
    """
    module_name, _, attribute = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # a console script has its own folder there, not the user's
    try:
        found: Any = import_module(module_name)
    except Exception as error:  # a user's module may raise anything
        raise ConfigError(f"{key} {path!r} cannot be imported: {type(error).__name__}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{key} {path!r}: {module_name} has no {attribute}{nearest(part, dir(found))}")
        found = getattr(found, part)
    return found


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; the nearest known one is ..." for a mistyped name, empty if nothing is like it."""
    close = get_close_matches(name, list(known), n=1)
    return f"; the nearest known one is {close[0]}" if close else ""


def choice(key: str, name: str, known: Iterable[str]) -> str:
    """Return `name`. Raises: ConfigError if it is not among the `known` ones."""
    known = list(known)
    if name not in known:
        raise ConfigError(f"unknown {key} {name!r}{nearest(name, known)}; it is {', '.join(known)}")
    return name
