"""Claim a folder for a new trace: nothing that is there is overwritten, and force removes nothing but a trace."""

from __future__ import annotations

from pathlib import Path

from imbdyn.trace._files import LEFTOVER_NAME, PART_NAME
from imbdyn.trace.run_file import RUN_FILE, TraceError, read_run
from imbdyn.trace.schema import TABLES


def claim_folder(folder: Path, *, force: bool) -> None:
    """Make `folder`, or take it if it is empty, or, with `force`, if it holds a trace, which is removed.

    Raises: FileExistsError if it holds anything else; then nothing in it was touched.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        if not force:
            raise FileExistsError(
                f"{folder} exists and is never overwritten: choose another out, or replace the trace in it with "
                "force=True (--force)"
            )
        _remove_trace(folder)
    folder.mkdir(parents=True, exist_ok=True)


def _remove_trace(folder: Path) -> None:
    try:
        read_run(folder)
    except TraceError as error:
        raise FileExistsError(f"{error}; force removes nothing but a trace") from None
    tables = [path for path in (folder / name for name in TABLES) if path.exists() or path.is_symlink()]
    files = [file for table in tables for file in _contents(table)]
    for file in files:
        if file.is_dir() or not (PART_NAME.fullmatch(file.name) or LEFTOVER_NAME.fullmatch(file.name)):
            raise FileExistsError(f"{file} is no part of a trace, so force removed nothing from {folder}")
    for file in files:
        file.unlink()
    for table in tables:
        table.rmdir()
    (folder / RUN_FILE).unlink()  # last: a removal that was cut short leaves a trace, which force can remove


def _contents(table: Path) -> list[Path]:
    """List a table's folder; what is no folder, or a link to one, stands for itself."""
    return [table] if table.is_symlink() or not table.is_dir() else list(table.iterdir())
