"""What a run holds of one table at one moment, while it may go on: parts and journal, nothing lost, nothing doubled.

The order makes it so. Segments of the journal are read first and parts are listed after them: a segment disappears only
once its rows are in parts, which are then listed, and what is in both is known by its record number. run.json is read
before and after: if the run was resumed in between, all is read again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow import fs

from imbdyn.trace._damage import TraceDamage, UntrustedError
from imbdyn.trace._format import JOURNAL_FOLDER, PART_NAME, SEGMENT_NAME
from imbdyn.trace._parts import Part, open_part
from imbdyn.trace._plain import Labels
from imbdyn.trace._run_folder import RunFolder, step_limits
from imbdyn.trace._segments import MAX_SEGMENT_BYTES, SegmentRecords, parse_segment
from imbdyn.trace.run_file import TraceError
from imbdyn.trace.schema import Table

#: How often a reader begins anew because files went away under it, and how long a record may take to be written.
_ATTEMPTS, _WRITE_SECONDS = 10, 0.05


@dataclass(frozen=True)
class Piece:
    """A part, of which rows with a step above `limit` were superseded when the run was resumed."""

    part: Part
    limit: int | None

    def groups(self, filter: ds.Expression | None, labels: Labels) -> list[int]:
        """Return the row groups that may hold wanted rows."""
        return self.part.groups(self._condition(filter), labels)

    def read(self, group: int, columns: list[str] | None, filter: ds.Expression | None, labels: Labels) -> pa.Table:
        """Return the wanted rows of a row group. Raises: as Part.read_group."""
        return self.part.read_group(group, columns, self._condition(filter), labels)

    def is_whole(self) -> bool:
        """Tell whether every row counts."""
        return self.limit is None or all(
            steps is not None and steps[1] <= self.limit
            for steps in map(self.part.steps, range(self.part.metadata.num_row_groups))
        )

    def _condition(self, filter: ds.Expression | None) -> ds.Expression | None:
        """Return `filter` and the limit as one condition."""
        if self.limit is None:
            return filter
        valid = ds.field("step") <= self.limit
        return valid if filter is None else filter & valid


@dataclass
class Snapshot:
    """One table of a run at one moment."""

    pieces: list[Piece]
    #: By rank: rows that no part holds yet, with plain names.
    journal: dict[int, pa.Table]
    damage: list[TraceDamage] = field(default_factory=list)


class Opened:
    """Opens parts and keeps their footers: a part never changes once it has its name."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._parts: dict[tuple[str, int], Part | UntrustedError] = {}

    def part(self, table: Table, info: fs.FileInfo) -> Part:
        """Return an opened part. Raises: as open_part."""
        found = self._parts.get((info.path, info.size))
        if found is None:
            try:
                found = open_part(self._folder.filesystem, table, info.path, info.size)
            except UntrustedError as error:
                found = error
            self._parts[info.path, info.size] = found
        if isinstance(found, UntrustedError):
            raise found
        return found


def take_snapshot(folder: RunFolder, table: Table, opened: Opened) -> Snapshot:
    """Return what the run holds of `table` now. What is damaged is left out and named in `damage`.

    Raises: TraceError if run.json cannot be trusted, or the files of the run change faster than they can be read.
    """
    for _ in range(_ATTEMPTS):
        damage: list[TraceDamage] = []
        before = step_limits(folder.read_run())
        try:
            segments = read_journal(folder, damage)
            parts = list_parts(folder, table, opened, damage)
        except FileNotFoundError:  # a part was merged into another one between listing and opening
            continue
        limits = step_limits(folder.read_run())
        if limits == before:
            pieces = [Piece(part, limit_of(part, limits)) for part in parts]
            return Snapshot(pieces, unsealed_rows(folder, table, segments, parts, damage), damage)
    raise TraceError(f"{folder.place} changes faster than it can be read")


def list_parts(folder: RunFolder, table: Table, opened: Opened, damage: list[TraceDamage]) -> list[Part]:
    """Return the parts of a table in the order of their names, without those that were merged into others."""
    parts = []
    for name, info in sorted(folder.files(table.name).items()):
        if PART_NAME.fullmatch(name):
            try:
                parts.append(opened.part(table, info))
            except UntrustedError as error:
                damage.append(TraceDamage(folder.named(table.name, name), f"{error}; the part is left out"))
    replaced = frozenset[str]().union(*(part.replaces for part in parts))
    return [part for part in parts if part.name not in replaced]


def read_journal(folder: RunFolder, damage: list[TraceDamage]) -> dict[str, SegmentRecords]:
    """Return the segments of the journal by name, each up to where it is damaged; one that went away is in parts."""
    segments = {}
    for name in sorted(folder.files(JOURNAL_FOLDER)):
        if not SEGMENT_NAME.fullmatch(name):
            continue
        segment = _read_segment(partial(_read, folder, name))
        if segment is None:
            continue
        segments[name] = segment
        if segment.problem is not None:
            lost = segment.total_bytes - segment.valid_bytes
            damage.append(
                TraceDamage(
                    folder.named(JOURNAL_FOLDER, name),
                    f"{segment.problem}; its last {lost} bytes are left out, {len(segment.commits)} commits are read",
                )
            )
    return segments


def _read_segment(read: Callable[[], bytes | None]) -> SegmentRecords | None:
    """Read a segment; one that ends within a record is read again, since that record may just be being written."""
    data = read()
    while data is not None:
        segment = parse_segment(data)
        if not segment.cut_short:
            return segment
        time.sleep(_WRITE_SECONDS)
        again = read()
        if again is not None and len(again) == len(data):
            return segment
        data = again
    return None


def _read(folder: RunFolder, name: str) -> bytes | None:
    try:
        with folder.filesystem.open_input_stream(f"{folder.root}/{JOURNAL_FOLDER}/{name}") as file:
            return bytes(file.read(MAX_SEGMENT_BYTES))
    except FileNotFoundError:
        return None


def unsealed_rows(
    folder: RunFolder, table: Table, segments: dict[str, SegmentRecords], parts: list[Part], damage: list[TraceDamage]
) -> dict[int, pa.Table]:
    """Return the rows of the journal that no part holds, by the rank that wrote them."""
    sealed: dict[int, int] = {}
    for part in parts:
        sealed[part.rank] = max(part.seals, sealed.get(part.rank, 0))
    rows: dict[int, list[pa.Table]] = {}
    for name, segment in segments.items():
        rank = int(name[:4])
        try:
            rows.setdefault(rank, []).append(segment.rows(table, after=sealed.get(rank, 0)))
        except UntrustedError as error:
            problem = f"{error}; its rows of {table.name} are left out"
            damage.append(TraceDamage(folder.named(JOURNAL_FOLDER, name), problem))
    return {rank: pa.concat_tables(found) for rank, found in rows.items() if found}


def limit_of(part: Part, limits: dict[str, list[tuple[int, int]]]) -> int | None:
    resumed = limits.get(f"{part.table.name}/{part.rank:04d}", ())
    return min((step for sequence, step in resumed if part.sequence < sequence), default=None)
