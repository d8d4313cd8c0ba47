"""Merge the small parts of a trace. At no instant is a row lost, or twice in what a reader of this format returns.

The merged part names in its footer the parts that it stands for. From the moment it has its name, readers pass over
those; only then are they removed. What a crash leaves of them is removed by the next compaction.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.dataset as ds

from imbdyn.trace._files import sync_folder
from imbdyn.trace._format import FIRST_SEQUENCE, PART_NAME, REPLACES
from imbdyn.trace._part import sorted_by_key, write_part
from imbdyn.trace._parts import Part, open_part
from imbdyn.trace._plain import plain_schema
from imbdyn.trace._run_folder import RunFolder, step_limits
from imbdyn.trace._snapshot import limit_of
from imbdyn.trace._store import is_uri
from imbdyn.trace.check import Checker
from imbdyn.trace.run_file import TraceError
from imbdyn.trace.schema import TABLES

#: Rows of a merged part, which are sorted in memory; a part that has as many is left as it is.
MERGED_ROWS = 1_048_576


class Compacted(NamedTuple):
    """Number of parts of a table before and after."""

    table: str
    before: int
    after: int


def compact(place: str | os.PathLike[str]) -> list[Compacted]:
    """Merge parts that follow one another, of each table and rank, up to MERGED_ROWS; superseded rows are left out.

    Raises: TraceError if there is no trace, it is in an object store, its run has not ended, or `check` finds a
        problem; OSError if the disk does not take a part: then the trace is as it was.
    """
    if is_uri(place):
        raise TraceError(f"{place} is compacted in a local folder: copy it, compact the copy, and put it back")
    folder = RunFolder(place)
    checker = Checker(folder)
    report = checker.report()
    if report.problems:
        first = report.problems[0]
        raise TraceError(f"{folder.place} is not compacted: {first.file}: {first.message}; imbdyn check --repair first")
    if report.status == "running":
        raise TraceError(
            f"{folder.place} is not compacted: its run has not ended; of one that was killed, imbdyn check --repair "
            "makes one that has"
        )
    limits = step_limits(checker.run or {})
    done = []
    for name in TABLES:
        parts = checker.parts[name]
        _remove_replaced(Path(folder.root) / name, parts)
        after = len(parts)
        for group in _groups(parts):
            _merge(Path(folder.root) / name, group, limits)
            after -= len(group) - 1
        if parts:
            done.append(Compacted(name, len(parts), after))
    return done


def _remove_replaced(folder: Path, parts: Sequence[Part]) -> None:
    """Remove what a compaction that was cut short has left."""
    for name in sorted(frozenset[str]().union(*(part.replaces for part in parts))):
        if PART_NAME.fullmatch(name) and (folder / name).exists():
            (folder / name).unlink()
            sync_folder(folder)


def _groups(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Yield runs of two or more parts of one rank that have at most MERGED_ROWS together."""
    for _, of_rank in groupby(parts, key=lambda part: part.rank):
        group: list[Part] = []
        rows = 0
        for part in of_rank:
            if rows + part.metadata.num_rows > MERGED_ROWS:
                if len(group) > 1:
                    yield group
                group, rows = [], 0
            group.append(part)
            rows += part.metadata.num_rows
        if len(group) > 1:
            yield group


def _merge(folder: Path, parts: Sequence[Part], limits: dict[str, list[tuple[int, int]]]) -> None:
    table = parts[0].table
    rows = pa.concat_tables([_valid_rows(part, limit_of(part, limits)) for part in parts])
    replaces = sorted(part.name for part in parts)
    path = write_part(
        folder,
        table,
        [sorted_by_key(table, rows)],
        rank=parts[0].rank,
        sequence=parts[-1].sequence,
        seals=max(part.seals for part in parts),
        about={REPLACES: ",".join(replaces), FIRST_SEQUENCE: str(parts[0].first_sequence)},
    )
    sync_folder(folder)
    merged = open_part(parts[0].filesystem, table, str(path), path.stat().st_size)
    if _valid_rows(merged, None).num_rows != rows.num_rows:
        raise TraceError(f"{path} does not hold the rows that were written to it; the parts that it merges are kept")
    for name in replaces:
        (folder / name).unlink()
    sync_folder(folder)


def _valid_rows(part: Part, limit: int | None) -> pa.Table:
    valid = None if limit is None else ds.field("step") <= limit
    groups = [part.read_group(group, filter=valid) for group in range(part.metadata.num_row_groups)]
    return pa.concat_tables([plain_schema(part.table).empty_table(), *groups])
