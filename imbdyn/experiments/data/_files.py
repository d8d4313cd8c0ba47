"""Files and folders of a user's data, and what is said of one that is not there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from imbdyn.experiments.errors import DataError


def folder(path: str, key: str) -> Path:
    """Return the folder at `path`. Raises: DataError, which names the key, if there is none."""
    found = Path(path).expanduser()
    if not found.is_dir():
        raise DataError(f"{key} must be a folder, and {path} {'is a file' if found.exists() else 'does not exist'}")
    return found


def file(path: str, key: str) -> Path:
    """Return the file at `path`. Raises: DataError, which names the key, if there is none."""
    found = Path(path).expanduser()
    if not found.is_file():
        raise DataError(f"{key} must be a file, and {path} {'is a folder' if found.exists() else 'does not exist'}")
    return found


def only_one(found: Iterable[Path], where: Path, usual: str) -> Path:
    """Return the file that was found. Raises: DataError if there is none, or more than one."""
    files = sorted(found)
    if len(files) != 1:
        several = f"{len(files)} ({', '.join(path.name for path in files)})" if files else "none"
        raise DataError(f"{where} must hold one file such as {usual}, and holds {several}")
    return files[0]
