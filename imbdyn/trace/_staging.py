"""The local folder in which a run whose trace goes to a store keeps what is not sent yet."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from imbdyn.trace._format import JOURNAL_FOLDER, PART_NAME, RUN_FILE
from imbdyn.trace._store import public_uri
from imbdyn.trace.schema import TABLES

#: Environment variable: the folder of all staging folders.
STAGING_VARIABLE = "IMBDYN_STAGING"


def staging_root() -> Path:
    """Return the folder of all staging folders: IMBDYN_STAGING, or imbdyn/staging in the user's cache directory."""
    if own := os.environ.get(STAGING_VARIABLE):
        return Path(own).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "imbdyn" / "staging"


def staging_folder(uri: str, run_id: str, rank: int) -> Path:
    """Return the staging folder of one rank of a run. Its name is the same whatever credentials the URI carries."""
    return staging_root() / f"{_hash(public_uri(uri))}-{_hash(run_id)}-{rank:04d}"


def staged_beside(uri: str, name: str) -> Path:
    """Return the path of a file that belongs to a run at `uri` but not into its trace, and stays on this machine."""
    return staging_root() / f"{_hash(public_uri(uri))}.{name}"


def staged(uri: str) -> list[Path]:
    """Return the staging folders on this machine in which something waits for `uri`, of all its runs and ranks."""
    return sorted(path for path in staging_root().glob(f"{_hash(public_uri(uri))}-*") if path.is_dir())


def is_staging(folder: Path, out: object) -> bool:
    """Whether `folder` is a staging folder whose run.json says `out`, and not a copy of the trace that is there."""
    return (
        isinstance(out, str)
        and re.fullmatch(rf"{_hash(out)}-[0-9a-f]{{16}}-\d{{4}}", folder.absolute().name) is not None
    )


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a staging folder; the hold ends with the process, however it ends.

    Raises: BlockingIOError if a living process holds it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f"{folder.name}.lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"{folder} is in use by a process that still writes or sends its trace") from None
        yield
        if not folder.exists():
            lock.unlink(missing_ok=True)
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing would leave it to processes that were forked from this one
        os.close(descriptor)


def parts_in(folder: Path) -> list[str]:
    """Return the parts in a staging folder, as paths in it, in the order in which they were written."""
    found: list[Path] = []
    for table in TABLES:
        with suppress(FileNotFoundError):  # a table without rows has no folder
            found += [path for path in (folder / table).iterdir() if PART_NAME.fullmatch(path.name)]
    return [f"{path.parent.name}/{path.name}" for path in sorted(found, key=lambda path: path.name)]


def newest_parts(names: Iterable[str]) -> dict[tuple[str, str], str]:
    """Return of every table and rank the last part, as its path below the run."""
    newest: dict[tuple[str, str], str] = {}
    for name in sorted(names):
        table, _, file = name.partition("/")
        match = PART_NAME.fullmatch(file)
        if table in TABLES and match:
            newest[table, match["rank"]] = name  # names sort in the order in which the parts were written
    return newest


def records_in(folder: Path) -> list[str]:
    """Return what a staging folder says of its run, as paths in it: run.json, or of another rank than 0 its own file.

    Such a rank has a run.json too, but only as a copy.
    """
    rank = rank_of(folder)
    name = f"{JOURNAL_FOLDER}/{rank:04d}.json" if rank else RUN_FILE
    return [name] if (folder / name).exists() else []


def rank_of(folder: Path) -> int:
    """Return whose staging folder it is."""
    return int(folder.name.rpartition("-")[2])


def remove_staging(folder: Path) -> None:
    """Remove a staging folder of which everything was sent. Raises: OSError if there is anything else in it."""
    for name in (*parts_in(folder), *records_in(folder), RUN_FILE):
        (folder / name).unlink(missing_ok=True)
    for name in (*TABLES, JOURNAL_FOLDER):
        with suppress(FileNotFoundError):
            (folder / name).rmdir()
    folder.rmdir()


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]
