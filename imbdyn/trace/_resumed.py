"""Infer from the parts alone where a run was resumed: its steps go back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from imbdyn.trace._damage import UntrustedError
from imbdyn.trace._parts import Part
from imbdyn.trace._plain import plain_schema


def inferred_resumed(tables: Mapping[str, Sequence[Part]]) -> list[dict[str, Any]]:
    """Return what run.json would say under `resumed`, given the parts of each table."""
    resumed = []
    for table, parts in tables.items():
        for rank in sorted({part.rank for part in parts}):
            earlier: list[Part] = []
            for part in (part for part in parts if part.rank == rank):
                first = _first_step(part)
                if first is not None and any(_goes_back(old, part, first) for old in earlier):
                    resumed.append({"step": first - 1, "parts": {f"{table}/{rank:04d}": part.sequence}})
                earlier.append(part)
    return resumed


def _first_step(part: Part) -> int | None:
    steps = [part.steps(group) for group in range(part.metadata.num_row_groups)]
    return min((span[0] for span in steps if span is not None), default=None)


def _goes_back(old: Part, new: Part, first: int) -> bool:
    """Tell whether `old` has rows after the first step of `new`, or the same rows at that step."""
    spans = [old.steps(group) for group in range(old.metadata.num_row_groups)]
    last = max((span[1] for span in spans if span is not None), default=first - 1)
    if last != first:
        return last > first
    keys = pa.concat_tables([_keys_at(old, first), _keys_at(new, first)])
    return bool(keys.group_by(old.table.key).aggregate([]).num_rows < keys.num_rows)


def _keys_at(part: Part, step: int) -> pa.Table:
    at = ds.field("step") == step
    found = []
    for group in part.groups(at):
        try:
            found.append(part.read_group(group, list(part.table.key), at))
        except UntrustedError:  # a damaged row group is repaired on its own
            continue
    empty = plain_schema(part.table).empty_table().select(list(part.table.key))
    return pa.concat_tables([empty, *found])
