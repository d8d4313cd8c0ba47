"""Seal segments of the journal into parts: one part a table, then the segment is removed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imbdyn.trace._commits import segments_of
from imbdyn.trace._damage import UntrustedError
from imbdyn.trace._files import sync_folder
from imbdyn.trace._format import JOURNAL_FOLDER, MAX_SEQUENCE, PART_NAME, RECORD, SEALS
from imbdyn.trace._part import sorted_by_key, write_part
from imbdyn.trace._plain import conform
from imbdyn.trace._segments import SegmentRecords, parse_segment
from imbdyn.trace.run_file import TraceError
from imbdyn.trace.schema import TABLES


class Sealer:
    """Writes the parts of one rank. Its owner sees to it that one thread at a time is in it.

    It begins behind the parts that are there, so that what a crash has left between parts and journal is sealed once.
    """

    def __init__(self, run: Path, rank: int) -> None:
        self._run = run
        self._rank = rank
        #: By table: number of the next part.
        self.sequences = dict.fromkeys(TABLES, 0)
        #: By table: the last record that its parts hold.
        self.sealed = dict.fromkeys(TABLES, 0)
        for name in TABLES:
            own = sorted((p.name, p) for p in parts_of(run, name) if _rank_of(p) == rank)
            if own:
                self.sequences[name] = _sequence_of(own[-1][1]) + 1
                self.sealed[name] = max(_seals_of(part) for _, part in own)

    @property
    def last_record(self) -> int:
        """The last record that any part holds."""
        return max(self.sealed.values())

    def seal(self, segment: SegmentRecords) -> tuple[int, list[Path]]:
        """Write the rows of a segment that no part holds into parts, whose names are then on disk.

        Returns: number of the last record that was whole, 0 if there was none; and the parts.

        Raises: OSError if a part could not be written. Then the segment must be kept, and sealed again later.
        """
        commits = segment.trusted_commits()
        if commits is None:
            return 0, []
        last: int = pc.max(commits[RECORD]).as_py()
        parts, failure = [], None
        for name, table in TABLES.items():
            if name not in commits.column_names:  # an older version's
                continue
            # Records ascend: a slice, since a filter would copy every list of every table, 15 times slower.
            sealed: int = pc.sum(pc.less_equal(commits[RECORD], self.sealed[name])).as_py()
            rows = pa.Table.from_struct_array(commits.slice(sealed)[name].combine_chunks().flatten())
            if not rows.num_rows:
                continue
            try:
                parts.append(self._write(name, sorted_by_key(table, conform(table, rows)), last))
            except OSError as error:  # the other tables are written all the same
                failure = failure or error
        for part in parts:
            sync_folder(part.parent)
        if failure is not None:
            raise failure
        return last, parts

    def _write(self, name: str, rows: pa.Table, seals: int) -> Path:
        sequence = self.sequences[name]
        if sequence > MAX_SEQUENCE:
            raise OSError(f"{self._run / name} has {MAX_SEQUENCE + 1} parts: compact it")
        part = write_part(self._run / name, TABLES[name], [rows], rank=self._rank, sequence=sequence, seals=seals)
        # At once: now that it has its name, it must not be written again.
        self.sequences[name], self.sealed[name] = sequence + 1, seals
        return part

    def remove(self, segment: Path) -> None:
        """Remove a segment that was sealed."""
        segment.unlink(missing_ok=True)
        sync_folder(self._run / JOURNAL_FOLDER)


def recover(run: Path) -> dict[str, int]:
    """Seal what the processes that wrote this run have left in its journal, whatever their rank.

    Returns: by segment, the bytes behind its last whole record, where there are any: a record that was being written
        when its process was killed, or damage.

    Raises: TraceError if a segment was not written by a writer of this format, OSError if a part cannot be written.
    """
    lost = {}
    for path in segments_of(run):
        segment = parse_segment(path.read_bytes())
        try:
            segment.check()
        except UntrustedError as error:
            raise TraceError(f"{path}: {error}; imbdyn check --repair first") from None
        sealer = Sealer(run, int(path.name[:4]))
        sealer.seal(segment)
        if rest := segment.total_bytes - segment.valid_bytes:
            lost[path.name] = rest
        sealer.remove(path)
    for leftover in (path for name in TABLES for path in (run / name).glob(".*.tmp")):
        leftover.unlink()
    return lost


def next_sequences(run: Path) -> dict[str, int]:
    """Return the number of the next part of every table and rank that has any, by "<table>/<rank>"."""
    following: dict[str, int] = {}
    for name in TABLES:
        for part in parts_of(run, name):
            key = f"{name}/{_rank_of(part):04d}"
            following[key] = max(following.get(key, 0), _sequence_of(part) + 1)
    return following


def parts_of(run: Path, table: str) -> Iterable[Path]:
    """Return the parts of a table, in no order."""
    folder = run / table
    return [path for path in folder.iterdir() if PART_NAME.fullmatch(path.name)] if folder.is_dir() else []


def _seals_of(part: Path) -> int:
    try:
        return int((pq.read_metadata(part).metadata or {}).get(SEALS, b"0"))
    except (OSError, pa.ArrowException, ValueError):
        return 0  # a part that is damaged seals nothing that the others do not


def _rank_of(part: Path) -> int:
    return int(part.name.split("-")[1])


def _sequence_of(part: Path) -> int:
    return int(part.name.split("-")[2])
