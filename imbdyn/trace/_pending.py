"""The rows of the commit to come."""

from __future__ import annotations

from collections.abc import Mapping

from imbdyn.trace._commits import Commit
from imbdyn.trace._lookup import look_up_table
from imbdyn.trace._record import RecordEncoder
from imbdyn.trace._rows import Rows, TableRows, joined
from imbdyn.trace.schema import TABLES


class Pending:
    """Gathers what is appended, until it is one commit.

    Args:
        record: number of the first commit.
    """

    def __init__(self, record: int) -> None:
        self._encoder = RecordEncoder()
        self._tables = {name: TableRows(table) for name, table in TABLES.items()}
        self._batch = _Batch(record)

    @property
    def rows(self) -> int:
        """How many rows, of all tables together."""
        return sum(part.rows for parts in self._batch.tables.values() for part in parts)

    @property
    def schema_message(self) -> bytes:
        """What the records of a segment begin with."""
        return self._encoder.schema_message

    def append(self, table: str, columns: Mapping[str, object]) -> None:
        """Check and copy rows; after an error none was added."""
        if table not in self._tables:
            look_up_table(table)
        rows = self._tables[table].parse(columns)
        if rows.rows:
            self._batch.tables.setdefault(table, []).append(rows)

    def encoded(self) -> Commit | None:
        """Return the rows as one commit; None if there are none. They stay, until `begin_next` is called."""
        batch = self._batch
        if not batch.tables:
            return None
        tables = {name: joined(parts) for name, parts in batch.tables.items()}
        return Commit(batch.record, self._encoder.encode(batch.record, tables), self.rows)

    def begin_next(self) -> None:
        """Go on to the next commit; one assignment, so that Ctrl-C finds the one commit or the other."""
        self._batch = _Batch(self._batch.record + 1)

    def clear(self) -> None:
        """Forget the rows."""
        self._batch = _Batch(self._batch.record)


class _Batch:
    __slots__ = ("record", "tables")

    def __init__(self, record: int) -> None:
        self.record = record
        self.tables: dict[str, list[Rows]] = {}
