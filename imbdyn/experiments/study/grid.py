"""A study's TOML file: an experiment's, and a table [grid] that says which of its values take several.

    [grid]
    seed = [0, 1, 2, 3, 4]
    imbalance.ratio = [2, 5, 10]
    method = [{ name = "cross_entropy" }, { name = "ldam", reweight_after = 32 }]

Every combination is a cell of the grid: an experiment of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

from imbdyn.experiments.config import ExperimentConfig, experiment, read_toml
from imbdyn.experiments.errors import ConfigError
from imbdyn.experiments.options import shown

_DEFAULT = "default"


@dataclass(frozen=True)
class Cell:
    """One experiment of a study."""

    label: str
    """Name of its folder, such as "ratio-10_seed-0"."""
    shared_label: str
    """The label without what [imbalance] says: of the folder of a run that the cells of all imbalances share."""
    config: ExperimentConfig


@dataclass(frozen=True)
class Study:
    """A grid of experiments."""

    name: str
    """Name of the preset or of the file it was read from."""
    cells: list[Cell]
    """In the order of the grid, its last key the fastest."""


@dataclass(frozen=True)
class _Axis:
    key: str
    """Such as "imbalance.ratio"."""
    labels: list[str]
    values: list[Any]


def study_presets() -> list[str]:
    """Return the names of the studies that come with imbdyn."""
    folder = resources.files("imbdyn.experiments.study") / "presets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_study(source: str = _DEFAULT) -> Study:
    """Read a preset by its name, or a TOML file.

    Raises: ConfigError if there is neither, or if the grid or an experiment in it is not as it must be.
    """
    if source in study_presets():
        with resources.as_file(resources.files("imbdyn.experiments.study") / "presets" / f"{source}.toml") as path:
            return _study(source, read_toml(path))
    path = Path(source)
    if not path.is_file():
        raise ConfigError(
            f"a study is a preset ({', '.join(study_presets())}) or a TOML file, and {source!r} is neither"
        )
    return _study(path.stem, read_toml(path))


def _study(name: str, values: dict[str, Any]) -> Study:
    grid = values.pop("grid", {})
    if not isinstance(grid, Mapping):
        raise ConfigError(f"grid must be a table ([grid]), got {shown(grid)}")
    axes = list(_axes(grid, ""))
    cells = []
    for chosen in product(*(range(len(axis.values)) for axis in axes)):
        picked = [(axis, index) for axis, index in zip(axes, chosen, strict=True)]
        overrides: dict[str, Any] = {}
        for axis, index in picked:
            overrides = _deep_merge(overrides, _nested(axis.key, axis.values[index]))
        shared = [axis.labels[index] for axis, index in picked if not axis.key.startswith("imbalance")]
        cells.append(
            Cell(
                label="_".join(axis.labels[index] for axis, index in picked) or "run",
                shared_label="_".join(shared) or "run",
                config=experiment(name, values, overrides),
            )
        )
    return Study(name, cells)


def _axes(grid: Mapping[str, Any], prefix: str) -> Iterator[_Axis]:
    for name, values in grid.items():
        key = f"{prefix}{name}"
        if isinstance(values, Mapping):
            yield from _axes(values, f"{key}.")
            continue
        if not isinstance(values, list) or not values:
            raise ConfigError(f"grid.{key} must be an array of what {key} takes in turn, got {shown(values)}")
        twice = next((value for i, value in enumerate(values) if value in values[:i]), None)
        if twice is not None:
            raise ConfigError(f"grid.{key} must have each value once, got {twice!r} twice")
        labels = [_label(name, value) for value in values]
        yield _Axis(key, [_told_apart(labels, index) for index in range(len(labels))], values)


def _label(name: str, value: Any) -> str:
    """Return a value of a key as part of a folder's name."""
    if isinstance(value, Mapping):
        value = value.get("name", value.get("profile", name))
    words = f"{value:g}" if isinstance(value, float) else str(value)
    words = re.sub(r"[^A-Za-z0-9.]+", "-", words).strip("-.")[:40]
    return words if isinstance(value, str) else f"{name}-{words}"


def _told_apart(labels: list[str], index: int) -> str:
    before = labels[:index].count(labels[index])
    return f"{labels[index]}-{before + 1}" if before else labels[index]


def _nested(key: str, value: Any) -> dict[str, Any]:
    """Return {"a": {"b": value}} for the key "a.b"."""
    return reduce(lambda inner, name: {name: inner}, reversed(key.split(".")), value)


def _deep_merge(base: dict[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in other.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = _deep_merge(dict(below), value)
        merged[key] = value
    return merged
