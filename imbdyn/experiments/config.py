"""The configuration of an experiment, and how it is read from TOML.

A preset names every value. A user's file overrides any of them; its key `preset` says of which preset (`default`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from difflib import SequenceMatcher
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_DEFAULT = "default"


class ConfigError(ValueError):
    """A configuration is wrong; the message is one line and names the key."""


@dataclass(frozen=True)
class DataConfig:
    """Which samples are held out."""

    test_share: float

    def __post_init__(self) -> None:
        # Outside of this some class has no sample on one side of the split.
        _require(0.01 <= self.test_share <= 0.99, "data.test_share must be 0.01 to 0.99", self.test_share)


@dataclass(frozen=True)
class ImbalanceConfig:
    """The step profile: `num_rare` classes are cut to 1 / `ratio`."""

    ratio: float
    num_rare: int

    def __post_init__(self) -> None:
        _require(self.ratio >= 1.0, "imbalance.ratio must be at least 1", self.ratio)
        _require(1 <= self.num_rare <= 9, "imbalance.num_rare must be 1 to 9 of the 10 classes", self.num_rare)


@dataclass(frozen=True)
class ModelConfig:
    """Widths of the network."""

    channels: int
    hidden: int

    def __post_init__(self) -> None:
        _require(self.channels >= 1, "model.channels must be at least 1", self.channels)
        _require(self.hidden >= 1, "model.hidden must be at least 1", self.hidden)


@dataclass(frozen=True)
class TrainConfig:
    """Stochastic gradient descent with momentum."""

    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "train.epochs must be at least 1", self.epochs)
        _require(self.batch_size >= 1, "train.batch_size must be at least 1", self.batch_size)
        _require(self.lr > 0.0, "train.lr must be above 0", self.lr)
        _require(0.0 <= self.momentum < 1.0, "train.momentum must be at least 0 and below 1", self.momentum)
        _require(self.weight_decay >= 0.0, "train.weight_decay must be at least 0", self.weight_decay)


@dataclass(frozen=True)
class MonitorConfig:
    """How often the instrument reads class gradients."""

    interval: int

    def __post_init__(self) -> None:
        _require(self.interval >= 1, "monitor.interval must be at least 1", self.interval)


@dataclass(frozen=True)
class ExperimentConfig:
    """Everything that decides what an experiment does; equal configurations give identical runs."""

    name: str
    """Name of the preset or of the file it was read from."""
    seed: int
    data: DataConfig
    imbalance: ImbalanceConfig
    model: ModelConfig
    train: TrainConfig
    monitor: MonitorConfig

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**32, "seed must be 0 to 4294967295", self.seed)

    def with_seed(self, seed: int) -> ExperimentConfig:
        """Return the same configuration with another seed."""
        return replace(self, seed=seed)

    def as_dict(self) -> dict[str, Any]:
        """Return nested dictionaries that JSON can hold."""
        return asdict(self)


_Config = TypeVar("_Config")


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
        return _build(ExperimentConfig, {"name": source, **_preset(source)}, "")
    path = Path(source)
    if not path.is_file():
        raise ConfigError(
            f"an experiment is a preset ({', '.join(presets())}) or a TOML file, and {source!r} is neither"
        )
    try:
        overrides = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source} is not TOML: {error}") from error
    preset = overrides.pop("preset", _DEFAULT)
    if preset not in presets():
        raise ConfigError(f"preset must be one of {', '.join(presets())}, got {preset!r}")
    if "name" in overrides:
        raise ConfigError(f"unknown key name; an experiment is named after its file, this one {path.stem!r}")
    return _build(ExperimentConfig, {"name": path.stem, **_merge(_preset(preset), overrides, "")}, "")


def _preset(name: str) -> dict[str, Any]:
    text = (resources.files("imbdyn.experiments") / "presets" / f"{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _merge(base: Mapping[str, Any], overrides: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Override leaf by leaf; a key that the preset does not have is kept, for `_build` to complain about."""
    merged = dict(base)
    for key, value in overrides.items():
        below = base.get(key)
        merged[key] = (
            _merge(below, value, f"{prefix}{key}.")
            if isinstance(below, Mapping) and isinstance(value, Mapping)
            else value
        )
    return merged


def _build(kind: type[_Config], values: Mapping[str, Any], prefix: str) -> _Config:
    types = get_type_hints(kind)
    for key in values:
        if key not in types:
            raise ConfigError(f"unknown key {prefix}{key}; the nearest valid one is {_nearest_key(prefix + key)}")
    return kind(**{name: _value(types[name], values[name], f"{prefix}{name}") for name in types})


def _value(kind: Any, value: Any, key: str) -> Any:
    if is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key} must be a table ([{key}]), got {_shown(value)}")
        return _build(cast("type[object]", kind), value, f"{key}.")
    # bool is an int in Python, not in TOML; an integer is a fine float.
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or isinstance(value, bool):
        raise ConfigError(f"{key} must be {_KINDS[kind]}, got {_shown(value)}")
    return kind(value)


_KINDS = {int: "an integer", float: "a number", str: "a string"}
_TYPES = {bool: "a boolean", list: "an array", dict: "a table", **_KINDS}


def _shown(value: Any) -> str:
    return f"{_TYPES.get(type(value), type(value).__name__)} ({value!r})"


def _keys(kind: Any, prefix: str = "") -> Iterator[str]:
    for name, below in get_type_hints(kind).items():
        if is_dataclass(below):
            yield f"{prefix}{name}"
            yield from _keys(below, f"{prefix}{name}.")
        elif name != "name":
            yield f"{prefix}{name}"


def _nearest_key(key: str) -> str:
    """Return the valid key nearest to `key`, in whatever table: a key in the wrong table is a common slip."""
    leaf = key.rpartition(".")[2]

    def likeness(valid: str) -> float:
        # The whole key breaks ties, so that a key of the same table is preferred.
        same_leaf = SequenceMatcher(None, leaf, valid.rpartition(".")[2]).ratio()
        return same_leaf + 0.5 * SequenceMatcher(None, key, valid).ratio()

    return max(["preset", *_keys(ExperimentConfig)], key=likeness)


def _require(holds: bool, rule: str, value: object) -> None:
    if not holds:
        raise ConfigError(f"{rule}, got {value}")
