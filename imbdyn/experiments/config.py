"""The configuration of an experiment, and how it is read from TOML.

A preset names every value. A user's file overrides any of them; its key `preset` says of which preset (`default`).
The sections data, imbalance, model and method choose a thing by name, whose fields are the other keys of the section:
a file that names another thing than its preset starts from that thing's own defaults.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from difflib import SequenceMatcher
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

from imbdyn.experiments.data import SOURCES, Source
from imbdyn.experiments.errors import ConfigError, require
from imbdyn.experiments.methods import METHODS, Method
from imbdyn.experiments.models import MODELS, ModelSpec
from imbdyn.experiments.options import build, checked, shown
from imbdyn.experiments.profiles import PROFILES, Profile
from imbdyn.experiments.registry import Registry, choice
from imbdyn.experiments.schedules import SCHEDULES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["ConfigError", "ExperimentConfig", "MonitorConfig", "TrainConfig", "experiment", "load_config", "presets"]

_DEFAULT = "default"

#: The sections that choose a thing by name.
_REGISTRIES: dict[str, Registry[Any]] = {
    registry.section: registry for registry in (SOURCES, PROFILES, MODELS, METHODS)
}
OPTIMIZERS = ("sgd", "adamw")


@dataclass(frozen=True)
class TrainConfig:
    """The training loop."""

    epochs: int
    batch_size: int
    lr: float
    momentum: float
    """Of SGD; of AdamW the decay rate beta_1 of its first moment."""
    weight_decay: float
    """Of SGD an L2 penalty on all parameters, of AdamW decoupled."""
    optimizer: str
    schedule: str
    """What the learning rate does after the warm-up."""
    warmup: int
    """Epochs over which the learning rate grows linearly."""
    milestones: tuple[int, ...]
    """Of the schedule "step": after each of these epochs the learning rate is multiplied by `decay`."""
    decay: float
    augment: bool
    """Whether training images are cropped at random (4 pixels of padding) and flipped, as usual on CIFAR."""
    device: str
    """Where the model is: "cpu", "cuda", "cuda:1"."""

    def __post_init__(self) -> None:
        require(self.epochs >= 1, "train.epochs must be at least 1", self.epochs)
        require(self.batch_size >= 1, "train.batch_size must be at least 1", self.batch_size)
        require(self.lr > 0.0, "train.lr must be above 0", self.lr)
        require(0.0 <= self.momentum < 1.0, "train.momentum must be at least 0 and below 1", self.momentum)
        require(self.weight_decay >= 0.0, "train.weight_decay must be at least 0", self.weight_decay)
        choice("train.optimizer", self.optimizer, OPTIMIZERS)
        choice("train.schedule", self.schedule, SCHEDULES)
        require(self.warmup >= 0, "train.warmup must be at least 0", self.warmup)
        require(all(m >= 1 for m in self.milestones), "train.milestones must be at least 1", list(self.milestones))
        require(self.decay > 0.0, "train.decay must be above 0", self.decay)


@dataclass(frozen=True)
class MonitorConfig:
    """How often the instrument reads class gradients."""

    interval: int

    def __post_init__(self) -> None:
        require(self.interval >= 1, "monitor.interval must be at least 1", self.interval)


@dataclass(frozen=True)
class ExperimentConfig:
    """Everything that decides what an experiment does; equal configurations give identical runs."""

    name: str
    """Name of the preset or of the file it was read from."""
    seed: int
    data: Source
    imbalance: Profile
    model: ModelSpec
    method: Method
    train: TrainConfig
    monitor: MonitorConfig

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, "seed must be 0 to 4294967295", self.seed)

    def with_seed(self, seed: int) -> ExperimentConfig:
        """Return the same configuration with another seed."""
        return replace(self, seed=seed)

    def as_dict(self) -> dict[str, Any]:
        """Return nested dictionaries, equal to what JSON makes of them."""
        nested: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        return nested


def presets() -> list[str]:
    """Return the names of the presets that come with imbdyn."""
    folder = resources.files("imbdyn.experiments") / "presets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_config(source: str = _DEFAULT) -> ExperimentConfig:
    """Read a preset by its name, or a TOML file whose values override those of the preset it names.

    Raises:
        ConfigError: if there is no such preset or file, or a key is unknown, of a wrong type or out of range.
    """
    if source in presets():
        return experiment(source, {"preset": source})
    path = Path(source)
    if not path.is_file():
        raise ConfigError(
            f"an experiment is a preset ({', '.join(presets())}) or a TOML file, and {source!r} is neither"
        )
    return experiment(path.stem, read_toml(path))


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a TOML file says. Raises: ConfigError if it is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def experiment(name: str, *overrides: Mapping[str, Any]) -> ExperimentConfig:
    """Return the experiment `name`: a preset's values, overridden by one mapping after the other.

    Raises: ConfigError as `load_config`.
    """
    values: dict[str, Any] = {}
    for override in overrides:
        values = _merge(values, override)
    preset = values.pop("preset", _DEFAULT)
    if preset not in presets():
        raise ConfigError(f"preset must be one of {', '.join(presets())}, got {preset!r}")
    if "name" in values:
        raise ConfigError(f"unknown key name; an experiment is named after its file, this one {name!r}")
    text = (resources.files("imbdyn.experiments") / "presets" / f"{preset}.toml").read_text(encoding="utf-8")
    return _build(name, _merge(tomllib.loads(text), values))


def _merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Override key by key; a key that the base does not have is kept, for `_build` to complain about."""
    merged = dict(base)
    for key, value in overrides.items():
        below = base.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            selector = _REGISTRIES[key].selector if key in _REGISTRIES else None
            another = selector in value and value[selector] != below.get(selector)
            merged[key] = dict(value) if another else {**below, **value}
        else:
            merged[key] = value
    return merged


def _build(name: str, values: Mapping[str, Any]) -> ExperimentConfig:
    hints = get_type_hints(ExperimentConfig)
    kinds = {key: _kind(key, hints[key], values.get(key)) for key in hints}

    def nearest_key(key: str) -> str:
        return _nearest_key(key, list(_keys(kinds)))

    for key in values:
        if key not in hints:
            raise ConfigError(f"unknown key {key}; the nearest valid one is {nearest_key(key)}")
    built: dict[str, Any] = {"name": name}
    for key, kind in kinds.items():
        if isinstance(kind, type) and is_dataclass(kind):
            built[key] = build(kind, values[key], key, nearest_key)
        elif key != "name":
            built[key] = checked(kind, values[key], key)
    return ExperimentConfig(**built)


def _kind(key: str, hint: Any, values: Any) -> Any:
    """Return the class that a section is made into: of one that chooses by name, what it names."""
    if not is_dataclass(hint):
        return hint
    if not isinstance(values, Mapping):
        raise ConfigError(f"{key} must be a table ([{key}]), got {shown(values)}")
    registry = _REGISTRIES.get(key)
    if registry is None:
        return hint
    return registry.find(checked(str, values.get(registry.selector), registry.key))


def _keys(kinds: Mapping[str, Any]) -> Iterator[str]:
    yield "preset"
    for key, kind in kinds.items():
        if is_dataclass(kind):
            yield key
            yield from (f"{key}.{field.name}" for field in fields(kind))
        elif key != "name":
            yield key


def _nearest_key(key: str, valid_keys: list[str]) -> str:
    """Return the valid key nearest to `key`, in whatever table: a key in the wrong table is a common slip."""
    leaf = key.rpartition(".")[2]

    def likeness(valid: str) -> float:
        # The whole key breaks ties, so that a key of the same table is preferred.
        same_leaf = SequenceMatcher(None, leaf, valid.rpartition(".")[2]).ratio()
        return same_leaf + 0.5 * SequenceMatcher(None, key, valid).ratio()

    return max(valid_keys, key=likeness)
