"""Rows that wait for their part, in one growing numpy array a column: an append is a few copies, no Arrow."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from imbdyn.trace._lookup import look_up
from imbdyn.trace.schema import Column, Table

_Array = npt.NDArray[Any]

#: numpy kinds that a column of each kind takes: no float into an integer, no bool into a number.
_ACCEPTED = {"f": "fiu", "i": "iu", "b": "b"}
_VALID, _NULL = np.array(True), (np.array(0), np.array(False))


class RowBuffer:
    """The waiting rows of one table; `part` is the sequence number of the part that they will become."""

    def __init__(self, table: Table, part: int = 0) -> None:
        self.table = table
        self.part = part
        self.rows = 0
        self._columns = {
            column.name: (_Names if pa.types.is_dictionary(column.type) else _Numbers)(
                f"{table.name}.{column.name}", column, required=column.name in table.key
            )
            for column in table.columns
        }

    def append(self, columns: Mapping[str, object]) -> None:
        """Copy rows in; after an error the buffer is as it was. TraceWriter.append says what is accepted."""
        parsed = {
            name: look_up(f"column of {self.table.name}", name, self._columns).parse(value)
            for name, value in columns.items()
        }
        missing = [name for name in self.table.key if name not in parsed]
        if missing:
            raise ValueError(f"{self.table.name} needs its key {self.table.key}, missing: {', '.join(missing)}")
        lengths = {name: len(values) for name, (values, _) in parsed.items() if values.ndim}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of {self.table.name} need equal lengths, got {lengths}")
        stop = self.rows + next(iter(lengths.values()), 1)
        for name, column in self._columns.items():
            column.put(self.rows, stop, *parsed.get(name, _NULL))
        self.rows = stop  # last: the rows of an append that was interrupted are never seen

    def newest(self, rows: int) -> RowBuffer:
        """Return a buffer with the last `rows` rows of this one."""
        kept = RowBuffer(self.table, self.part)
        kept.rows = min(rows, self.rows)
        kept._columns = {name: column.cut(self.rows - kept.rows, self.rows) for name, column in self._columns.items()}
        return kept

    def to_arrow(self) -> pa.Table:
        """Return the rows with the table's schema, sorted by its key."""
        schema = self.table.schema()
        table = pa.Table.from_arrays([column.to_arrow(self.rows) for column in self._columns.values()], schema=schema)
        # Arrow sorts no dictionaries, so names are decoded for the comparison.
        key = pa.table({name: _decoded(table[name]) for name in self.table.key})
        return table.take(pc.sort_indices(key, sort_keys=[(name, "ascending") for name in key.column_names]))


class _Numbers:
    """The waiting values of one column, and which of them are valid (not null)."""

    def __init__(self, label: str, column: Column, *, required: bool) -> None:
        self._label = label
        self._type = column.type
        self._required = required
        self._values: _Array = np.empty(0, self._dtype())
        self._valid: _Array = np.empty(0, np.bool_)

    def parse(self, value: Any) -> tuple[_Array, _Array]:
        """Return the values ([n], or [] for a scalar) and where they are valid."""
        if value is None:
            values, valid = _NULL
        elif isinstance(value, np.ma.MaskedArray):
            values, valid = self._array(value.data), ~np.ma.getmaskarray(value)
        else:
            values, valid = self._array(value), _VALID
        if values.ndim > 1:
            raise ValueError(f"{self._label} must be a scalar or one-dimensional, got shape {values.shape}")
        if self._required and valid is not _VALID and not valid.all():
            raise ValueError(f"{self._label} is part of the key and cannot be null")
        return values, valid

    def put(self, start: int, stop: int, values: _Array, valid: _Array) -> None:
        """Copy into rows start..stop; scalars are broadcast."""
        if stop > len(self._values):
            size = max(stop, 2 * len(self._values), 256)
            self._values, self._valid = np.resize(self._values, size), np.resize(self._valid, size)
        self._values[start:stop] = values
        self._valid[start:stop] = valid

    def cut(self, start: int, stop: int) -> _Numbers:
        """Return this column with rows start..stop only, in memory of its own."""
        other = copy(self)
        other._values, other._valid = self._values[start:stop].copy(), self._valid[start:stop].copy()
        return other

    def to_arrow(self, rows: int) -> pa.Array:
        """Return the first `rows` values; NaN stays NaN."""
        return pa.array(self._values[:rows], mask=~self._valid[:rows])

    def _dtype(self) -> Any:
        return self._type.to_pandas_dtype()

    def _array(self, value: Any) -> _Array:
        values: _Array = np.asarray(value)
        if values.size and values.dtype.kind not in _ACCEPTED[self._values.dtype.kind]:
            raise TypeError(
                f"{self._label} holds {self._type}, got {values.dtype}; absent values are None or masked (numpy.ma)"
            )
        return values


class _Names(_Numbers):
    """A column of names, held as codes into the list of the names seen."""

    def __init__(self, label: str, column: Column, *, required: bool) -> None:
        super().__init__(label, column, required=required)
        self._codes: dict[str, int] = {}

    def to_arrow(self, rows: int) -> pa.Array:
        """Return the first `rows` values, dictionary-encoded."""
        return pa.DictionaryArray.from_arrays(super().to_arrow(rows), pa.array(list(self._codes), pa.string()))

    def _dtype(self) -> Any:
        return np.int32

    def _array(self, value: Any) -> _Array:
        if isinstance(value, str):
            return np.array(self._code(value))
        names = value.tolist() if isinstance(value, np.ndarray) else value
        try:  # names that were all seen before, which is the rule, take a tenth of the time
            return np.fromiter(map(self._codes.__getitem__, names), np.int32)
        except (KeyError, TypeError):
            return np.fromiter((self._code(name) for name in names), np.int32)

    def _code(self, name: object) -> int:
        if not isinstance(name, str):
            raise TypeError(f"{self._label} holds names, got {name!r}")
        if name not in self._codes:
            name.encode()  # a name that is no Unicode text is an error here, not in every flush to come
        return self._codes.setdefault(name, len(self._codes))


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
