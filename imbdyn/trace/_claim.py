"""Claim a folder for a run: nothing that is there is overwritten, and force removes nothing but a trace.

The claim is run.json itself: who creates it has the folder, and what it says under "claim" tells whose it is. There are
no locks, which network disks do not keep.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from errno import EEXIST
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

from imbdyn.trace._files import sync_folder
from imbdyn.trace._format import (
    JOURNAL_FOLDER,
    LEFTOVER_NAME,
    PART_NAME,
    RANK_FILE_NAME,
    RUN_FILE,
    SEGMENT_NAME,
)
from imbdyn.trace._run_folder import read_run
from imbdyn.trace.run_file import TraceError
from imbdyn.trace.schema import TABLES

#: The field of run.json that names the run which writes into the folder.
CLAIM = "claim"
#: Other ranks wait so long for rank 0 to claim the folder.
CLAIM_SECONDS = 60.0
_ASK_EVERY = 0.05


class LostClaimError(OSError):
    """The folder was removed, or another run has claimed it: nothing more is written."""


def claim_new(folder: Path, encoded_run: bytes, *, force: bool) -> None:
    """Make `folder`, or take it if it is empty, or if it holds a trace, which `force` removes; and write run.json.

    Raises: FileExistsError if it holds anything else (then nothing in it was touched), or if another run was faster.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        if not force:
            raise FileExistsError(
                f"{folder} exists and is never overwritten: choose another out, or replace the trace in it with "
                "force=True (--force)"
            )
        _remove_trace(folder)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{RUN_FILE}.{uuid4().hex}.tmp"  # no other process's, on whatever host
    try:
        with temporary.open("wb") as file:
            file.write(encoded_run)
            file.flush()
            os.fsync(file.fileno())
        _create(temporary, folder / RUN_FILE)
    except FileExistsError:
        raise FileExistsError(
            EEXIST, "another run has just claimed this folder: choose another out", str(folder)
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(folder)


def join(folder: Path, run_id: str, seconds: float = CLAIM_SECONDS) -> None:
    """Wait until rank 0 of the run `run_id` has claimed `folder`.

    Raises: TimeoutError if it has not after `seconds`: rank 0 failed, or the folder belongs to another run.
    """
    end = monotonic() + seconds
    while (claimed := claim_of(folder)) != run_id:
        if monotonic() > end:
            found = "is claimed by nobody" if claimed is None else f"belongs to run {claimed!r}"
            raise TimeoutError(
                f"rank 0 of run {run_id!r} has not claimed {folder} within {seconds:g} s: the folder {found}"
            )
        sleep(_ASK_EVERY)


def claim_of(folder: Path) -> str | None:
    """Return the id of the run that has claimed `folder`; None if there is none."""
    try:
        claim = read_run(folder).get(CLAIM)
    except TraceError:
        return None
    return claim if isinstance(claim, str) else None


def check_claim(folder: Path, run_id: str) -> None:
    """Raise LostClaimError if `folder` is no longer this run's."""
    try:
        claim: Mapping[str, Any] = read_run(folder)
    except TraceError as error:
        raise LostClaimError(f"nothing more is written to the trace: {error}") from None
    if claim.get(CLAIM) != run_id:
        raise LostClaimError(f"nothing more is written to the trace: another run has claimed {folder}")


def _create(temporary: Path, path: Path) -> None:
    """Give a file its name, whole, unless there is one of that name. Raises: FileExistsError."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a filesystem without hard links; here two runs could both pass in the same microsecond
        if path.exists():
            raise FileExistsError(path) from None
        temporary.replace(path)


def _remove_trace(folder: Path) -> None:
    try:
        read_run(folder)
    except TraceError as error:
        raise FileExistsError(f"{error}; force removes nothing but a trace") from None
    known: dict[str, tuple[re.Pattern[str], ...]] = dict.fromkeys(TABLES, (PART_NAME, LEFTOVER_NAME))
    known[JOURNAL_FOLDER] = (SEGMENT_NAME, RANK_FILE_NAME, LEFTOVER_NAME)
    folders = [path for path in (folder / name for name in known) if path.exists() or path.is_symlink()]
    files = [file for path in folders for file in _contents(path)]
    for file in files:
        names = known.get(file.parent.name, ())
        if file.is_dir() or not any(name.fullmatch(file.name) for name in names):
            raise FileExistsError(f"{file} is no part of a trace, so force removed nothing from {folder}")
    for file in files:
        file.unlink()
    for path in folders:
        path.rmdir()
    (folder / RUN_FILE).unlink()  # last: a removal that was cut short leaves a trace, which force can remove


def _contents(folder: Path) -> list[Path]:
    """List a table's folder; what is no folder, or a link to one, stands for itself."""
    return [folder] if folder.is_symlink() or not folder.is_dir() else list(folder.iterdir())
