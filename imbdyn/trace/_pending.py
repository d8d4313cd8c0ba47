"""The rows of the commit to come, checked as they are appended."""

from __future__ import annotations

from imbdyn.trace._commit_rows import commit_rows
from imbdyn.trace._commits import Commit
from imbdyn.trace._lookup import look_up_table
from imbdyn.trace._record import RecordEncoder
from imbdyn.trace._rows import TableRows
from imbdyn.trace.schema import TABLES


class Pending:
    """Gathers what is appended, until it is one commit.

    Args:
        record: number of the first commit.
    """

    def __init__(self, record: int) -> None:
        encoder = RecordEncoder()
        #: What the records of a segment begin with.
        self.schema_message = encoder.schema_message
        self._numbers = {name: number for number, name in enumerate(TABLES)}
        self._tables = [TableRows(table) for table in TABLES.values()]
        self._rows = commit_rows(record, encoder)

    @property
    def record(self) -> int:
        """Number of the commit to come."""
        return self._rows.record

    @property
    def rows(self) -> int:
        """How many rows, of all tables together."""
        return self._rows.rows

    def append(self, table: str, columns: dict[str, object]) -> None:
        """Check and copy rows; after an error none was added."""
        number = self._numbers.get(table)
        if number is None:
            number = self._numbers[look_up_table(table).name]  # which raises
        if not self._rows.append(number, columns):
            rows, cells = self._tables[number].parse(columns)
            if rows:
                self._rows.append_cells(number, rows, cells)

    def encoded(self) -> Commit | None:
        """Return the rows as one commit; None if there are none. They stay, until `begin_next` is called."""
        rows = self._rows.rows
        return Commit(self._rows.record, self._rows.encode(), rows) if rows else None

    def begin_next(self) -> None:
        """Go on to the next commit; Ctrl-C finds the one commit or the other."""
        self._rows.begin_next()

    def clear(self) -> None:
        """Forget the rows."""
        self._rows.clear()
