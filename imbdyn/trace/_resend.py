"""Send what a run that has ended left in its staging folder."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from random import uniform
from time import sleep
from typing import TypeVar

from imbdyn.trace._claim import CLAIM, LostClaimError
from imbdyn.trace._format import RUN_FILE
from imbdyn.trace._remote import STORE_ERRORS, Remote, field_of
from imbdyn.trace._run_folder import read_run
from imbdyn.trace._sealer import recover
from imbdyn.trace._staging import held, is_staging, parts_in, records_in, remove_staging
from imbdyn.trace.run_file import TraceError

#: The first wait between two attempts; each is twice as long as the one before, and drawn between half of it and all.
FIRST_WAIT_SECONDS = 0.5
#: What ended runs have left is tried so often a file.
_ATTEMPTS = 4

_T = TypeVar("_T")


def send_part(remote: Remote, folder: Path, part: str) -> None:
    """Send a part and have it confirmed: its size, and its last bytes read back. Raises: what the store raises."""
    with (folder / part).open("rb") as file:
        remote.write(part, file)
    if not remote.holds(part, folder / part):
        raise OSError(f"{remote.place} did not keep {part} as it was sent")


def send_staged(folder: Path, remote: Remote | None = None) -> list[str]:
    """Seal and send what is in a staging folder, remove it, and return the names of the files that were sent.

    Args:
        folder: the staging folder.
        remote: where to; if not given, what its run.json says, with credentials from the environment.

    Raises: TraceError if it is no staging folder, BlockingIOError if a living process holds it, LostClaimError if the
        place belongs to another run by now, OSError if the store does not take it all: then the rest stays.
    """
    run = read_run(folder)
    if not is_staging(folder, run.get("out")):
        raise TraceError(f"{folder} is not the staging folder of a trace that goes to a store")
    remote = remote or Remote(run["out"])
    with held(folder):
        recover(folder)
        there = _trying(remote, remote.read_record, RUN_FILE)
        if there is not None and field_of(there, CLAIM) != run[CLAIM]:
            raise LostClaimError(f"{folder} is not sent to {remote.place}, which another run has claimed since")
        # run.json comes last: if it says that the run has finished, then all parts are there
        sent = [part for part in parts_in(folder) if _trying(remote, _send_missing, remote, folder, part)]
        sent += [name for name in records_in(folder) if _trying(remote, _send_record, remote, folder, name)]
        remove_staging(folder)
    return sent


def _send_missing(remote: Remote, folder: Path, part: str) -> bool:
    if remote.holds(part, folder / part):
        return False
    send_part(remote, folder, part)
    return True


def _send_record(remote: Remote, folder: Path, name: str) -> bool:
    encoded = (folder / name).read_bytes()
    if remote.read_record(name) == encoded:
        return False
    remote.write(name, BytesIO(encoded))
    return True


def _trying(remote: Remote, do: Callable[..., _T], *arguments: object) -> _T:
    for attempt in range(_ATTEMPTS - 1):
        try:
            return do(*arguments)
        except STORE_ERRORS:
            sleep(FIRST_WAIT_SECONDS * 2**attempt * uniform(0.5, 1))
            remote.renew()
    return do(*arguments)
