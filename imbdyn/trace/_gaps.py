"""Find what is missing of a trace from what is numbered in it: parts, commits and steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from imbdyn.trace._damage import UntrustedError
from imbdyn.trace._format import PART_NAME
from imbdyn.trace._parts import Part
from imbdyn.trace._segments import SegmentRecords


def missing_parts(parts: Sequence[Part], damaged: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield (rank, numbers) of the parts of one table that are not there, among those with a later one.

    Args:
        damaged: paths of parts that are there, but not as they were written.
    """
    there = {(part.rank, n) for part in parts for n in range(part.first_sequence, part.sequence + 1)}
    for path in damaged:
        match = PART_NAME.fullmatch(path.rpartition("/")[2])
        assert match is not None
        there.add((int(match["rank"]), int(match["sequence"])))
    for rank in sorted({rank for rank, _ in there}):
        numbers = {number for found, number in there if found == rank}
        missing = [number for number in range(max(numbers)) if number not in numbers]
        if missing:
            yield rank, _spans(missing)


def missing_commits(segments: Mapping[str, SegmentRecords], parts: Iterable[Part]) -> Iterator[tuple[int, str]]:
    """Yield (rank, message) where the numbers of the commits in the journal do not follow on those in the parts."""
    sealed: dict[int, int] = {}
    for part in parts:
        sealed[part.rank] = max(part.seals, sealed.get(part.rank, 0))
    last = dict(sealed)
    for name, segment in sorted(segments.items()):
        rank = int(name[:4])
        try:
            records = segment.records()
        except UntrustedError:  # told where its rows are read
            continue
        for record in records:
            if record > last.get(rank, 0) + 1:
                yield rank, f"the commits {_spans(range(last.get(rank, 0) + 1, record))} are missing before {name}"
            last[rank] = max(record, last.get(rank, 0))


def missing_steps(steps: pa.Table) -> Iterator[str]:
    """Yield which steps no training window covers, given `step`, `since_step` and `split` of the table steps."""
    train = steps.filter((pc.field("split") == "train") & pc.field("since_step").is_valid()).sort_by("step")
    end = 0
    for since, step in zip(train["since_step"].to_pylist(), train["step"].to_pylist(), strict=True):
        if since > end:
            yield f"no training window covers the steps {_spans(range(end + 1, since + 1))}"
        end = max(end, step)


def _spans(numbers: Sequence[int]) -> str:
    """Write sorted numbers as "3, 5 to 9"."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in spans)
