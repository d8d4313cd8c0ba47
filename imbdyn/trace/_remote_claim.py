"""Claim a place in a store for a run, or go on with the run that is there.

A store has no locks and may not know "create unless it exists". So a run first puts a mark beside run.json, then looks:
of two runs that come at once, the second to put its mark sees the first's mark, or its run.json. (This holds where a
file can be seen as soon as it is written, which S3, Google Cloud Storage, Azure and HDFS promise.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from io import BytesIO
from time import monotonic, sleep

from imbdyn.trace._claim import CLAIM, CLAIM_SECONDS, LostClaimError
from imbdyn.trace._format import JOURNAL_FOLDER, PART_NAME, RANK_FILE_NAME, RUN_FILE, SEGMENT_NAME
from imbdyn.trace._remote import Remote, field_of
from imbdyn.trace.schema import TABLES

_MARK = re.compile(r"_claim-[0-9a-f]{16}")
_ASK_EVERY = 1.0


def mark_of(run_id: str) -> str:
    """Return the name of a run's mark."""
    return f"_claim-{sha256(run_id.encode()).hexdigest()[:16]}"


def claim_place(remote: Remote, run_id: str, *, force: bool, resume: bool) -> bool:
    """Put the run's mark, which must be removed once run.json is there, and tell whether there is a trace to resume.

    Raises: FileExistsError if the place holds anything (with `force` or `resume`: anything but a trace), or another
        run is about to claim it; then nothing was changed. OSError if the store does not answer.
    """
    mark = mark_of(run_id)
    remote.write(mark, BytesIO(b"a run is about to write its trace here\n"))
    try:
        # The marks before run.json: a run removes its mark only when its run.json is there.
        others = sorted(name for name in remote.files() if _MARK.fullmatch(name) and name != mark)
        files = sorted(name for name in remote.files() if not _MARK.fullmatch(name))
        if others and not force:
            raise FileExistsError(
                f"another run is about to claim {remote.place}: choose another out; if that run is dead, remove its "
                f"mark {others[0]}"
            )
        if files and not (force or resume):
            raise FileExistsError(
                f"{remote.place} exists and is never overwritten: choose another out, or replace the trace in it with "
                "force=True (--force)"
            )
        if files and RUN_FILE not in files:
            raise FileExistsError(
                f"{remote.place} holds {files[0]} but no {RUN_FILE}; {'force removes' if force else 'resume takes'} "
                "nothing but a trace"
            )
        if force:
            _remove_trace(remote, [*files, *others])
        return resume and bool(files)
    except BaseException:
        remote.remove(mark)
        raise


def await_claim(remote: Remote, run_id: str, seconds: float = CLAIM_SECONDS) -> bytes:
    """Wait until rank 0 of the run `run_id` has claimed the place, and return its run.json.

    Raises: TimeoutError if it has not after `seconds`.
    """
    end = monotonic() + seconds
    while True:
        run = remote.read_record(RUN_FILE)
        claim = field_of(run, CLAIM)
        if run is not None and claim == run_id:
            return run
        if monotonic() > end:
            found = "is claimed by nobody" if claim is None else f"belongs to run {claim!r}"
            raise TimeoutError(
                f"rank 0 of run {run_id!r} has not claimed {remote.place} within {seconds:g} s: the place {found}"
            )
        sleep(_ASK_EVERY)


def check_place(remote: Remote, run_id: str) -> None:
    """Raise LostClaimError if the place is another run's now, OSError if its run.json is gone."""
    run = remote.read_record(RUN_FILE)
    if run is None:
        raise OSError(f"{remote.place}/{RUN_FILE} is gone")
    if field_of(run, CLAIM) != run_id:
        raise LostClaimError(f"another run has claimed {remote.place}")


def _remove_trace(remote: Remote, files: Iterable[str]) -> None:
    known = {**dict.fromkeys(TABLES, (PART_NAME,)), JOURNAL_FOLDER: (SEGMENT_NAME, RANK_FILE_NAME)}
    doomed = []
    for name in files:
        folder, _, file = name.partition("/")
        if folder in known and not any(pattern.fullmatch(file) for pattern in known[folder]):
            raise FileExistsError(f"{name} is no part of a trace, so force removed nothing from {remote.place}")
        if folder in known or _MARK.fullmatch(name):
            doomed.append(name)
    for name in doomed:
        remote.remove(name)
    remote.remove(RUN_FILE)  # last: a removal that was cut short leaves a trace, which force can remove
