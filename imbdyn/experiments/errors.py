"""What a user can mend: every message is one sentence that names the key, the file or the package."""

from __future__ import annotations


class ExperimentError(Exception):
    """An experiment cannot be run as it was asked for."""


class ConfigError(ExperimentError, ValueError):
    """A configuration is wrong."""


class DataError(ExperimentError):
    """Data are not there, or are not what they should be."""


class MissingPackageError(ExperimentError):
    """A package that the experiment needs is not installed."""


class ExistingRunError(ExperimentError):
    """A run's folder cannot be used as it is."""


def require(holds: bool, rule: str, value: object) -> None:
    """Raise ConfigError with the rule and the value that breaks it, unless it `holds`."""
    if not holds:
        raise ConfigError(f"{rule}, got {value}")
