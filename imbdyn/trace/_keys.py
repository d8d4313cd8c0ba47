"""Check the keys of a table's rows: none is null, none is twice in it, and each row group is sorted by them."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from imbdyn.trace._part import sorted_by_key
from imbdyn.trace.schema import Table

_COUNT = "count_all"


class KeySweep:
    """Takes the keys of row groups in the order of their first steps; what can come no more is forgotten."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._waiting: pa.Table | None = None

    def add(self, keys: pa.Table, *, is_sorted: bool) -> Iterator[str]:
        """Take the keys of a row group; yield what is wrong with them. `is_sorted` says whether they should be."""
        if not keys.num_rows:
            return
        nulls = [name for name in keys.column_names if keys[name].null_count]
        if nulls:
            yield f"the key has nulls in {', '.join(nulls)}"
            return
        if is_sorted and not sorted_by_key(self._table, keys).equals(keys):
            yield f"its rows are not sorted by {', '.join(self._table.key)}"
        first = pc.min(keys["step"]).as_py()
        both = keys
        if self._waiting is not None:
            both = pa.concat_tables([self._waiting.filter(pc.field("step") >= first), keys])
        counts = both.group_by(self._table.key).aggregate([([], _COUNT)])
        doubled = counts.filter(pc.field(_COUNT) > 1)
        if doubled.num_rows:
            example = ", ".join(f"{name} {doubled[name][0].as_py()!r}" for name in self._table.key)
            yield f"{doubled.num_rows} keys are there twice, the first with {example}"
        self._waiting = counts.select(list(self._table.key))
