"""Verify a trace: every byte against its checksum, the schema, the keys, and that nothing is missing undeclared."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from imbdyn.trace._damage import TraceDamage, UntrustedError
from imbdyn.trace._format import (
    JOURNAL_FOLDER,
    LEFTOVER_NAME,
    PART_NAME,
    QUARANTINE_FOLDER,
    RANK_FILE_NAME,
    RUN_FILE,
    SEGMENT_NAME,
)
from imbdyn.trace._gaps import missing_commits, missing_parts, missing_steps
from imbdyn.trace._keys import KeySweep
from imbdyn.trace._parts import Part
from imbdyn.trace._run_folder import RunFolder, parse_run, step_limits
from imbdyn.trace._segments import SegmentRecords
from imbdyn.trace._snapshot import Opened, limit_of, list_parts, read_journal, unsealed_rows
from imbdyn.trace.run_file import NewerTraceError, TraceError
from imbdyn.trace.schema import TABLES, Table


@dataclass(frozen=True)
class Problem:
    """Something in a trace that is not as it should be."""

    #: "damage", "schema", "key" or "gap".
    kind: str
    #: Path in the run's folder.
    file: str
    message: str


@dataclass
class Report:
    """What `check` found."""

    path: str
    status: str | None = None
    #: By table: its parts, row groups, rows in parts and rows in the journal.
    tables: dict[str, dict[str, int]] = field(default_factory=dict)
    segments: int = 0
    commits: int = 0
    problems: list[Problem] = field(default_factory=list)
    #: What is known to be missing, and other things that are worth a line.
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        return {"ok": self.ok, **asdict(self)}


def check(place: str | os.PathLike[str]) -> Report:
    """Verify the trace at `place`, a path or a URI. Nothing is changed; memory does not grow with the trace.

    Raises: TraceError if there is no trace, or a newer imbdyn wrote it; OSError if the store does not answer.
    """
    return Checker(RunFolder(place)).report()


class Checker:
    """Goes through a trace once; `repair` needs to know more of what it met than the report says."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.run: dict[str, Any] | None = None
        #: By name: the segments of the journal, each up to where it is damaged.
        self.segments: dict[str, SegmentRecords] = {}
        #: By table: its parts whose footers are right.
        self.parts: dict[str, list[Part]] = {}
        #: Paths, in the run's folder, of parts that cannot be used at all.
        self.bad_parts: list[str] = []
        #: By path in the run's folder: the part, and its row groups that are damaged.
        self.bad_groups: dict[str, tuple[Part, list[int]]] = {}
        #: Paths, in the run's folder, of files in the making that were left.
        self.leftovers: list[str] = []
        self._report = Report(folder.place)
        self._loss_is_declared = False
        self._windows: list[pa.Table] = []

    def report(self) -> Report:
        """Check everything."""
        self._check_run()
        self._check_names()
        damage: list[TraceDamage] = []
        self.segments = read_journal(self.folder, damage)
        self._report.segments = len(self.segments)
        self._report.commits = sum(len(segment.commits) for segment in self.segments.values())
        for found in damage:
            self._problem("damage", self._inside(found.file), found.problem)
        for table in TABLES.values():
            self._check_table(table)
        self._check_gaps()
        return self._report

    def _check_run(self) -> None:
        path = f"{self.folder.root}/{RUN_FILE}"
        if self.folder.filesystem.get_file_info(path).type != fs.FileType.File:
            if not any(PART_NAME.fullmatch(name) for table in TABLES for name in self.folder.files(table)):
                self.folder.read_run()  # tells why there is no trace
            self._problem("damage", RUN_FILE, "it is gone")
            return
        try:
            self.run = self.folder.read_run()
            step_limits(self.run)
        except NewerTraceError:
            raise
        except TraceError as error:
            self.run = None
            self._problem("damage", RUN_FILE, self._without_place(str(error)))
            return
        self._report.status = str(self.run.get("status"))
        for lost in self.run.get("lost", ()):
            what = f"{lost.get('what')} (declared {lost.get('at')})" if isinstance(lost, dict) else lost
            self._declared(RUN_FILE, f"lost: {what}")
        self._check_dropped(RUN_FILE, self.run)

    def _check_dropped(self, file: str, record: Mapping[str, Any]) -> None:
        for name in ("dropped_rows", "dropped_commits"):
            if record.get(name):
                self._declared(file, f"{name}: {record[name]}")

    def _declared(self, file: str, what: str) -> None:
        self._loss_is_declared = True
        self._report.notes.append(f"{file} declares {what}")

    def _check_names(self) -> None:
        known = {**dict.fromkeys(TABLES, (PART_NAME,)), JOURNAL_FOLDER: (SEGMENT_NAME, RANK_FILE_NAME)}
        for folder, patterns in known.items():
            for name in self.folder.files(folder):
                if LEFTOVER_NAME.fullmatch(name):
                    self.leftovers.append(f"{folder}/{name}")
                elif not any(pattern.fullmatch(name) for pattern in patterns):
                    self._report.notes.append(f"{folder}/{name} is no file of a trace; readers pass over it")
        for path in self.leftovers:
            self._report.notes.append(f"{path} is in the making, or was left by a process that died")
        quarantined = len(self.folder.files(QUARANTINE_FOLDER))
        if quarantined:
            self._report.notes.append(f"{QUARANTINE_FOLDER} holds {quarantined} files that a repair took out")
        for name in sorted(self.folder.files(JOURNAL_FOLDER)):
            if RANK_FILE_NAME.fullmatch(name):
                self._check_rank_file(name)

    def _check_rank_file(self, name: str) -> None:
        with self.folder.filesystem.open_input_stream(f"{self.folder.root}/{JOURNAL_FOLDER}/{name}") as file:
            encoded = file.read()
        try:
            record = parse_run(encoded, self.folder.place)
        except TraceError as error:
            self._problem("damage", f"{JOURNAL_FOLDER}/{name}", self._without_place(str(error)))
            return
        self._check_dropped(f"{JOURNAL_FOLDER}/{name}", record)

    def _check_table(self, table: Table) -> None:
        damage: list[TraceDamage] = []
        parts = list_parts(self.folder, table, Opened(self.folder), damage)
        self.bad_parts += [self._inside(found.file) for found in damage]
        journal = unsealed_rows(self.folder, table, self.segments, parts, damage)
        for found in damage:
            self._problem("damage", self._inside(found.file), found.problem)
        self.parts[table.name] = parts
        sweeps: dict[int, KeySweep] = defaultdict(partial(KeySweep, table))  # each rank has the keys of its own samples
        for path, rank, rows, is_part in self._row_groups(table, parts, journal):
            if table.name == "steps":
                self._windows.append(rows.select(["step", "since_step", "split"]))
            for message in sweeps[rank].add(rows.select(list(table.key)), is_sorted=is_part):
                self._problem("key", path, message)
            if "class_a" in table.key and rows.filter(pc.field("class_a") >= pc.field("class_b")).num_rows:
                self._problem("key", path, "class_a is not below class_b in every row")
        journal_rows = sum(rows.num_rows for rows in journal.values())
        if parts or journal_rows:
            self._report.tables[table.name] = {
                "parts": len(parts),
                "row_groups": sum(part.metadata.num_row_groups for part in parts),
                "rows": sum(part.metadata.num_rows for part in parts),
                "journal_rows": journal_rows,
            }

    def _row_groups(
        self, table: Table, parts: list[Part], journal: dict[int, pa.Table]
    ) -> Iterator[tuple[str, int, pa.Table, bool]]:
        """Yield path, rank, rows that count, and whether they are from a part, in the order of their first steps."""
        limits = step_limits(self.run or {})
        found: list[tuple[int, int, Part | None, int]] = [
            ((part.steps(group) or (0, 0))[0], part.rank, part, group)
            for part in parts
            for group in range(part.metadata.num_row_groups)
        ]
        found += [(pc.min(rows["step"]).as_py() or 0, rank, None, 0) for rank, rows in journal.items() if rows.num_rows]
        for _, rank, part, group in sorted(found, key=lambda entry: entry[0]):
            if part is None:
                yield JOURNAL_FOLDER, rank, journal[rank], False
                continue
            path = f"{table.name}/{part.name}"
            try:
                rows = part.read_group(group)
            except UntrustedError as error:
                self.bad_groups.setdefault(path, (part, []))[1].append(group)
                self._problem("damage", path, f"{error}; it holds {lost_rows(part, [group])}")
                continue
            limit = limit_of(part, limits)
            yield path, rank, rows if limit is None else rows.filter(pc.field("step") <= limit), True

    def _check_gaps(self) -> None:
        for table, parts in self.parts.items():
            bad = [path for path in self.bad_parts if path.startswith(f"{table}/")]
            for rank, numbers in missing_parts(parts, bad):
                self._gap(table, f"the parts {numbers} of rank {rank:04d} are missing")
        for rank, message in missing_commits(self.segments, chain.from_iterable(self.parts.values())):
            self._gap(JOURNAL_FOLDER, f"rank {rank:04d}: {message}")
        if not self._report.problems and self._windows:
            for message in missing_steps(pa.concat_tables(self._windows)):
                self._gap("steps", message)

    def _gap(self, file: str, message: str) -> None:
        if self._loss_is_declared:
            self._report.notes.append(f"{file}: {message}, as declared")
        else:
            self._problem("gap", file, f"{message}, and no loss is declared")

    def _problem(self, kind: str, file: str, message: str) -> None:
        self._report.problems.append(Problem(kind, file, message))

    def _inside(self, file: str) -> str:
        return file.removeprefix(f"{self.folder.named()}/")

    def _without_place(self, message: str) -> str:
        return message.removeprefix(f"{self.folder.place}/{RUN_FILE} ")


def lost_rows(part: Part, groups: Sequence[int]) -> str:
    """Say how many rows some row groups of a part hold, and of which steps."""
    rows = sum(part.metadata.row_group(group).num_rows for group in groups)
    spans = [steps for steps in map(part.steps, groups) if steps is not None]
    steps = f", steps {min(spans)[0]} to {max(last for _, last in spans)}" if spans else ""
    return f"{rows} rows of {part.table.name}{steps}"
