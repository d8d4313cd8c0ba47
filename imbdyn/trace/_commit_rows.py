"""The rows of the commit to come: in C++ where the extension was built, in Python otherwise, with the same bytes."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Protocol

import numpy as np
import pyarrow as pa

from imbdyn.trace._record import RecordEncoder
from imbdyn.trace._rows import Cell, Names, Nullable, Rows, joined
from imbdyn.trace.schema import TABLES, Column

try:
    _extension: ModuleType | None = import_module("imbdyn._C")
except ImportError:
    _extension = None

#: As csrc/trace/commit.h numbers them.
_KINDS = {pa.float64(): 0, pa.int64(): 1, pa.int32(): 2, pa.bool_(): 3}
_NAME = 4


class CommitRows(Protocol):
    """Rows that were appended since the last commit."""

    @property
    def record(self) -> int:
        """Number of the commit that they will be."""

    @property
    def rows(self) -> int:
        """How many there are, of all tables together."""

    def append(self, table: int, columns: dict[str, object], /) -> bool:
        """Take rows of table number `table`, or return False and take none: then they are to be parsed first."""

    def append_cells(self, table: int, rows: int, cells: list[Cell], /) -> None:
        """Take rows that TableRows has parsed."""

    def encode(self) -> bytes:
        """Return the rows as the message of one commit."""

    def begin_next(self) -> None:
        """Forget the rows and go on to the next commit: both, or, if Ctrl-C comes before, neither."""

    def clear(self) -> None:
        """Forget the rows."""


def commit_rows(record: int, encoder: RecordEncoder) -> CommitRows:
    """Return an empty commit number `record`, of the fastest kind that there is."""
    if _extension is None or sys.byteorder != "little":
        return PythonCommitRows(record, encoder)
    tables = []
    for name, table in TABLES.items():
        columns = [(column.name, _kind(column), column.name in table.key) for column in table.columns]
        tables.append((*encoder.numbers_at(name), columns))
    made: CommitRows = _extension.CommitRows(
        record, encoder.metadata, encoder.body_length_at, tables, np.ndarray, np.ma.MaskedArray, Nullable, Names
    )
    return made


class PythonCommitRows:
    """The rows of a commit, in Python: the reference for csrc/trace, and what runs where that was not built."""

    def __init__(self, record: int, encoder: RecordEncoder) -> None:
        self._encoder = encoder
        self._batch = _Batch(record)

    @property
    def record(self) -> int:
        """See CommitRows, as for all that follows."""
        return self._batch.record

    @property
    def rows(self) -> int:
        return sum(part.rows for parts in self._batch.tables.values() for part in parts)

    def append(self, _table: int, _columns: dict[str, object], /) -> bool:
        return False

    def append_cells(self, table: int, rows: int, cells: list[Cell], /) -> None:
        self._batch.tables.setdefault(list(TABLES)[table], []).append(Rows(rows, cells))

    def encode(self) -> bytes:
        tables = {name: joined(parts) for name, parts in self._batch.tables.items()}
        return self._encoder.encode(self._batch.record, tables)

    def begin_next(self) -> None:
        self._batch = _Batch(self._batch.record + 1)  # one assignment

    def clear(self) -> None:
        self._batch = _Batch(self._batch.record)


class _Batch:
    __slots__ = ("record", "tables")

    def __init__(self, record: int) -> None:
        self.record = record
        self.tables: dict[str, list[Rows]] = {}


def _kind(column: Column) -> int:
    return _NAME if pa.types.is_dictionary(column.type) else _KINDS[column.type]
