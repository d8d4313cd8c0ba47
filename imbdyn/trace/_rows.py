"""Rows on their way into the journal: checked when they are appended, and copied as the bytes that Arrow will hold."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from imbdyn.trace._lookup import look_up
from imbdyn.trace.schema import Column, Table

_Array = npt.NDArray[Any]

#: numpy kinds that a column of each kind takes: no float into an integer, no bool into a number.
_ACCEPTED = {"f": "fiu", "i": "iu", "b": "b"}
#: Offsets into names of equal length are kept for so many rows at most.
_CACHED_ROWS = 4_096


class Nullable(NamedTuple):
    """Values of which some are absent; what numpy.ma does, at a tenth of its cost."""

    values: _Array
    """[n]"""
    valid: npt.NDArray[np.bool_]
    """[n], false where the value is absent: null in the trace."""


class Names:
    """Names that repeat: row i has `categories[codes[i]]`. Encoded once, however often it is appended.

    Args:
        categories: the K different names.
        codes: integers [n], each in 0..K-1.

    Raises: TypeError for a category that is no str, ValueError for one that is no Unicode text, IndexError for a code.
    """

    def __init__(self, categories: Sequence[str], codes: npt.ArrayLike) -> None:
        encoded = _encode_all(categories, "a category")
        chosen = np.asarray(codes, dtype=np.intp)
        self.cell = _names_cell(list(map(encoded.__getitem__, chosen.tolist())))

    @classmethod
    def repeat(cls, categories: Sequence[str], times: int) -> Names:
        """Return the names with each one repeated `times` times, as numpy.repeat does."""
        return cls(categories, np.repeat(np.arange(len(categories)), times))


class Cell(NamedTuple):
    """What was given for one column: n values, or a scalar (`rows` is None) that is to be broadcast."""

    rows: int | None
    data: bytes
    """The values, little-endian; a byte each for bool; UTF-8 for names."""
    valid: npt.NDArray[np.bool_] | bool
    """[n], or one answer for all."""
    offsets: bytes
    """int32 [n + 1] into the data of names; empty otherwise."""


class Rows(NamedTuple):
    """Rows of one table, column by column in the order of its schema, all with `rows` values."""

    rows: int
    columns: list[Cell]


class TableRows:
    """Turns what TraceWriter.append is given for one table into Rows."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._key = frozenset(table.key)
        self._columns = {
            column.name: (_NameColumn if pa.types.is_dictionary(column.type) else _NumberColumn)(
                f"{table.name}.{column.name}", column, required=column.name in table.key
            )
            for column in table.columns
        }

    def parse(self, given: Mapping[str, object]) -> Rows:
        """Check and copy the columns of one append. TraceWriter.append says what is accepted."""
        if not given.keys() <= self._columns.keys():
            for name in given:
                look_up(f"column of {self._table.name}", name, self._columns)
        if not given.keys() >= self._key:
            missing = ", ".join(name for name in self._table.key if name not in given)
            raise ValueError(f"{self._table.name} needs its key {self._table.key}, missing: {missing}")
        rows: int | None = None
        cells = []
        for name, column in self._columns.items():
            cell = column.parse(given.get(name))
            if cell.rows is not None and cell.rows != rows:
                if rows is not None:
                    raise ValueError(f"columns of {self._table.name} need equal lengths, got {self._lengths(given)}")
                rows = cell.rows
            cells.append(cell)
        count = 1 if rows is None else rows
        return Rows(count, [cell if cell.rows is not None else _broadcast(cell, count) for cell in cells])

    def _lengths(self, given: Mapping[str, object]) -> dict[str, int]:
        lengths = {name: self._columns[name].parse(value).rows for name, value in given.items()}
        return {name: rows for name, rows in lengths.items() if rows is not None}


def joined(parts: Sequence[Rows]) -> Rows:
    """Return the rows of several appends to one table, one after the other."""
    if len(parts) == 1:
        return parts[0]
    counts = [part.rows for part in parts]
    columns = [_joined_cells(cells, counts) for cells in zip(*(part.columns for part in parts), strict=True)]
    return Rows(sum(counts), columns)


class _NumberColumn:
    """A column of numbers or truth values."""

    def __init__(self, label: str, column: Column, *, required: bool) -> None:
        self._label = label
        self._type = column.type
        self._required = required
        self._dtype = np.dtype(column.type.to_pandas_dtype()).newbyteorder("<")
        self._absent = Cell(None, bytes(self._dtype.itemsize), False, b"")
        # A float or an int of Python's own goes the short way: a step has many.
        self._scalar = {"d": float, "q": int, "l": int}.get(self._dtype.char)
        self._pack = struct.Struct("<d" if self._dtype.kind == "f" else "<q").pack

    def parse(self, value: Any) -> Cell:
        """Return the values and where they are valid."""
        if value is None:
            if self._required:
                self._refuse_null()
            return self._absent
        kind = type(value)
        if kind is self._scalar:
            return Cell(None, self._pack(value), True, b"")
        if kind is Nullable:
            return self._nullable(value.values, np.asarray(value.valid, dtype=np.bool_))
        if isinstance(value, np.ma.MaskedArray):
            return self._nullable(value.data, ~np.ma.getmaskarray(value))
        rows, data = self._array(value)
        return Cell(rows, data, True, b"")

    def _nullable(self, values: Any, valid: npt.NDArray[np.bool_]) -> Cell:
        rows, data = self._array(values)
        if valid.all():
            return Cell(rows, data, True, b"")
        if self._required:
            self._refuse_null()
        if rows is None:
            return self._absent
        if valid.shape != (rows,):
            raise ValueError(f"{self._label} has {rows} values, but says of {valid.shape} whether they are valid")
        return Cell(rows, data, valid.copy(), b"")

    def _array(self, value: Any) -> tuple[int | None, bytes]:
        values: _Array = np.asarray(value)
        if values.dtype != self._dtype:
            values = self._cast(values)
        if values.ndim > 1:
            raise ValueError(f"{self._label} must be a scalar or one-dimensional, got shape {values.shape}")
        return (len(values) if values.ndim else None), values.tobytes()

    def _cast(self, values: _Array) -> _Array:
        if values.size and values.dtype.kind not in _ACCEPTED[self._dtype.kind]:
            raise TypeError(
                f"{self._label} holds {self._type}, got {values.dtype}; absent values are None or masked (numpy.ma)"
            )
        cast = values.astype(self._dtype)
        if self._dtype.kind == "i" and values.size and (values != cast).any():
            raise ValueError(f"{self._label} holds {self._type}, got {values[values != cast].flat[0]}")
        return cast

    def _refuse_null(self) -> None:
        raise ValueError(f"{self._label} is part of the key and cannot be null")


class _NameColumn:
    """A column of names, which is part of the key in every table."""

    def __init__(self, label: str, _column: Column, *, required: bool) -> None:
        assert required, f"{label} may be absent, which names never were"
        self._label = label

    def parse(self, value: Any) -> Cell:
        """Return the names."""
        if isinstance(value, Names):
            return value.cell
        if isinstance(value, str):
            data = value.encode()
            return Cell(None, data, True, struct.pack("<ii", 0, len(data)))
        if value is None:
            raise ValueError(f"{self._label} is part of the key and cannot be null")
        return _names_cell(_encode_all(value.tolist() if isinstance(value, np.ndarray) else value, self._label))


def _encode_all(names: Sequence[str], label: str) -> list[bytes]:
    encoded = []
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{label} holds names, got {name!r}")
        encoded.append(name.encode())
    return encoded


def _names_cell(names: list[bytes]) -> Cell:
    offsets = np.zeros(len(names) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, names), np.int64, len(names)), out=offsets[1:])
    return Cell(len(names), b"".join(names), True, _narrow(offsets))


def _narrow(offsets: npt.NDArray[np.int64]) -> bytes:
    if offsets[-1] >= 2**31:
        raise ValueError(f"the names of one commit may have 2 GiB in a column, got {offsets[-1]} bytes")
    return offsets.astype("<i4").tobytes()


def _broadcast(cell: Cell, rows: int) -> Cell:
    if not cell.offsets:
        return Cell(rows, cell.data * rows, cell.valid, b"")
    if rows > _CACHED_ROWS:
        return Cell(rows, cell.data * rows, True, _even_offsets.__wrapped__(len(cell.data), rows))
    return Cell(rows, cell.data * rows, True, _even_offsets(len(cell.data), rows))


@lru_cache(maxsize=64)
def _even_offsets(length: int, rows: int) -> bytes:
    return _narrow(np.arange(rows + 1, dtype=np.int64) * length)


def _joined_cells(cells: Sequence[Cell], counts: Sequence[int]) -> Cell:
    data = b"".join(cell.data for cell in cells)
    valid: npt.NDArray[np.bool_] | bool = True
    if not all(cell.valid is True for cell in cells):
        valid = np.concatenate([np.broadcast_to(cell.valid, n) for cell, n in zip(cells, counts, strict=True)])
    if not any(cell.offsets for cell in cells):
        return Cell(sum(counts), data, valid, b"")
    base = 0
    offsets = [np.zeros(1, np.int64)]
    for cell in cells:
        offsets.append(np.frombuffer(cell.offsets, "<i4").astype(np.int64)[1:] + base)
        base += len(cell.data)
    return Cell(sum(counts), data, valid, _narrow(np.concatenate(offsets)))
