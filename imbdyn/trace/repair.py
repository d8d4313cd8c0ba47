"""Repair a trace: every whole batch is kept, what cannot be used is put aside, and what was lost is told and declared.

Nothing is deleted but journal segments whose every record is in parts. What is taken out of the trace goes to
`_quarantine`, which readers pass over. run.json says under `lost` what is missing for good: a later check knows it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from time import time
from typing import Any

from imbdyn import __version__
from imbdyn.trace._claim import LostClaimError
from imbdyn.trace._damage import UntrustedError
from imbdyn.trace._files import sync_folder, whole_file
from imbdyn.trace._format import (
    FIRST_SEQUENCE,
    JOURNAL_FOLDER,
    JOURNAL_MAGIC,
    QUARANTINE_FOLDER,
    REPLACES,
    RUN_FILE,
    journal_schema,
)
from imbdyn.trace._journal import record_header
from imbdyn.trace._part import write_part
from imbdyn.trace._parts import Part
from imbdyn.trace._remote import Remote
from imbdyn.trace._resend import send_staged
from imbdyn.trace._resumed import inferred_resumed
from imbdyn.trace._run_folder import RunFolder
from imbdyn.trace._sealer import Sealer
from imbdyn.trace._segments import parse_segment, salvaged_payloads
from imbdyn.trace._staging import is_staging, staged
from imbdyn.trace._store import is_uri
from imbdyn.trace._writing import is_open
from imbdyn.trace.check import Checker, Report, lost_rows
from imbdyn.trace.run_file import TraceError, encode_run
from imbdyn.trace.schema import SCHEMA_VERSION, TABLES

#: A run that says it is running is left alone until so many seconds have passed since it last wrote anything.
QUIET_SECONDS = 60.0


@dataclass
class Repair:
    """What `repair` did."""

    #: None if nothing was checked before, since files were sent.
    before: Report | None
    after: Report
    #: What was done, a sentence each.
    done: list[str] = field(default_factory=list)
    #: What is lost, a sentence each.
    lost: list[str] = field(default_factory=list)


def repair(place: str | os.PathLike[str]) -> Repair:
    """Repair the trace in a local folder, and check it again.

    Of a URI, or a folder in which files wait to be sent to one, what this machine still has is sent; nothing else is
    repaired there.

    Raises: TraceError if there is no trace, a newer imbdyn wrote it, or its run seems to go on; OSError if the disk
        does not take the repaired files, or the store what is sent. It may be called again after any of them.
    """
    if isinstance(place, str) and is_uri(place):
        return _send(place, staged(place))
    root = Path(place)
    checker = Checker(RunFolder(place))
    before = checker.report()
    if checker.run is not None and is_staging(root, checker.run.get("out")):
        return _send(str(checker.run["out"]), [root])
    _refuse_if_alive(root, before.status)
    work = _Work(root, checker)
    work.parts()
    work.journal()
    for path in checker.leftovers:
        work.put_aside(path, "it was never finished")
    work.gaps(before)
    if before.problems or work.done or before.status == "running":
        work.run_json()
    return Repair(before, Checker(RunFolder(place)).report(), work.done, work.lost)


def _send(uri: str, folders: Sequence[Path]) -> Repair:
    """Send what waits in staging folders, and check what is in the store then."""
    remote = Remote(uri)
    done, lost = [], []
    for folder in folders:
        try:
            done += [f"{name} was sent from {folder}" for name in send_staged(folder, remote)]
        except LostClaimError as error:  # the place is another run's: that is no reason to keep back the others
            lost.append(str(error))
    return Repair(None, Checker(RunFolder(uri)).report(), done, lost)


class _Work:
    def __init__(self, root: Path, checker: Checker) -> None:
        self._root = root
        self._checker = checker
        self.done: list[str] = []
        self.lost: list[str] = []

    def put_aside(self, path: str, why: str) -> None:
        """Move a file of the trace to the quarantine."""
        folder = self._root / QUARANTINE_FOLDER
        folder.mkdir(exist_ok=True)
        target = folder / path.replace("/", "--")
        number = 0
        while target.exists():
            number += 1
            target = target.with_name(f"{path.replace('/', '--')}.{number}")
        (self._root / path).rename(target)
        sync_folder(folder)
        sync_folder((self._root / path).parent)
        self.done.append(f"{path} was moved to {QUARANTINE_FOLDER}/{target.name}: {why}")

    def parts(self) -> None:
        """Put damaged parts aside; of one whose footer is right, keep the row groups that are."""
        for path in self._checker.bad_parts:
            if not path.startswith(JOURNAL_FOLDER):
                between = _neighbours(self._checker, path)
                self.put_aside(path, "it cannot be read")
                self.lost.append(f"the rows of {path}, {between}")
        for path, (part, bad) in self._checker.bad_groups.items():
            good = [group for group in range(part.metadata.num_row_groups) if group not in bad]
            if good:
                about = {REPLACES: part.name, FIRST_SEQUENCE: str(part.first_sequence)}
                kept = write_part(
                    self._root / part.table.name,
                    part.table,
                    (part.read_group(group) for group in good),
                    rank=part.rank,
                    sequence=part.sequence,
                    seals=part.seals,
                    about=about,
                )
                sync_folder(kept.parent)
                self.done.append(f"{lost_rows(part, good)} of {path} were kept in {kept.name}")
            self.put_aside(path, "parts of it are damaged")
            self.lost.append(f"{lost_rows(part, bad)} of {path}")

    def journal(self) -> None:
        """Seal what the journal holds, also what stands whole behind a damaged record."""
        for name, segment in self._checker.segments.items():
            path = f"{JOURNAL_FOLDER}/{name}"
            data = (self._root / path).read_bytes()
            payloads = [segment.schema, *segment.commits] if segment.commits else []
            if segment.problem is not None:
                payloads = [segment.schema or journal_schema().serialize().to_pybytes(), *segment.commits]
                payloads += salvaged_payloads(data, segment.valid_bytes)
            whole = JOURNAL_MAGIC + b"".join(record_header(payload) + payload for payload in payloads)
            try:
                parsed = parse_segment(whole)
                numbers = parsed.check()
            except UntrustedError as error:
                self.put_aside(path, str(error))
                self.lost.append(f"the commits of {path}")
                continue
            Sealer(self._root, int(name[:4])).seal(parsed)
            if segment.problem is None:
                (self._root / path).unlink()
                sync_folder(self._root / JOURNAL_FOLDER)
            else:
                self.put_aside(path, segment.problem)
                missing = sorted(set(range(numbers[0], numbers[-1])) - set(numbers)) if numbers else []
                what = f"the commits {missing} of {path}" if missing else f"what followed in {path} after its damage"
                self.lost.append(
                    f"{what}: {len(data) - sum(map(len, payloads)) - 8 * len(payloads) - 8} bytes that are no records"
                )
            self.done.append(f"{len(numbers)} commits of {path} were sealed into parts")

    def gaps(self, report: Report) -> None:
        """Declare what is missing without a trace."""
        self.lost += [f"{problem.file}: {problem.message}" for problem in report.problems if problem.kind == "gap"]

    def run_json(self) -> None:
        """Write run.json with what is lost; if it is damaged, put it aside and write what can be known."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        run: dict[str, Any] | None = self._checker.run
        if run is None:
            if (self._root / RUN_FILE).exists():
                self.put_aside(RUN_FILE, "it is damaged")
            resumed = inferred_resumed(self._checker.parts)
            run = {
                "schema_version": SCHEMA_VERSION,
                "status": "interrupted",
                "imbdyn": __version__,
                "rebuilt": now,
                "resumed": resumed,
            }
            self.lost.append("run.json: names of classes, configuration and all else that it said of the run")
            self.done.append(f"{RUN_FILE} was written anew, with {len(resumed)} resumptions inferred from the parts")
        if run.get("status") == "running":
            run["status"] = "interrupted"
            self.done.append("the status is now interrupted: no process writes this run any more")
        if self.lost:
            run["lost"] = [*run.get("lost", ()), *({"at": now, "what": what} for what in self.lost)]
        with whole_file(self._root / RUN_FILE) as file:
            file.write(encode_run(run))


def _neighbours(checker: Checker, path: str) -> str:
    """Say between which steps the rows of a part lay that cannot be read, from the parts beside it."""
    table, _, name = path.partition("/")
    same: list[Part] = [part for part in checker.parts[table] if part.name[:9] == name[:9]]
    before = [steps for part in same if part.name < name for steps in _steps(part)]
    after = [steps for part in same if part.name > name for steps in _steps(part)]
    start = f"from step {max(last for _, last in before)}" if before else "from the beginning"
    return f"{start} {f'to step {min(first for first, _ in after)}' if after else 'to the end'}"


def _steps(part: Part) -> list[tuple[int, int]]:
    found = (part.steps(group) for group in range(part.metadata.num_row_groups))
    return [steps for steps in found if steps is not None]


def _refuse_if_alive(root: Path, status: str | None) -> None:
    """A live writer would not see that its journal is gone."""
    if status not in ("running", None):
        return
    paths = [root / RUN_FILE, *(root / JOURNAL_FOLDER).glob("*"), *(root / table for table in TABLES)]
    newest = max((path.stat().st_mtime for path in paths if path.exists()), default=0.0)
    quiet = time() - newest
    if (status == "running" and quiet < QUIET_SECONDS) or is_open(root):
        raise TraceError(
            f"{root} was written to {max(quiet, 0):.0f} s ago and its run has not ended: end it, or wait "
            f"{QUIET_SECONDS:.0f} s if it was killed"
        )
