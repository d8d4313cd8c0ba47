"""A table with a column of labels: fraud, defects, whatever has a row a sample."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch

from imbdyn.experiments.data._files import file
from imbdyn.experiments.data.source import Source
from imbdyn.experiments.data.split import Split, SplitData, held_out
from imbdyn.experiments.errors import DataError, require
from imbdyn.experiments.registry import nearest

#: More different labels than this are taken for numbers to be predicted, not for classes.
_MOST_CLASSES = 10_000


@dataclass(frozen=True, kw_only=True)
class Table(Source):
    """`table`: a CSV file with a header, or a Parquet file. Columns but the label's are numbers, without gaps."""

    name: str = "table"
    path: str
    label: str
    """The column of labels, numbers or strings; the classes are its values, sorted."""
    drop: tuple[str, ...] = ()
    """Columns that are no inputs."""
    test_share: float = 0.3
    """Share of the rows that is held out, stratified by class."""

    def __post_init__(self) -> None:
        require(0.0 < self.test_share < 1.0, "data.test_share must be above 0 and below 1", self.test_share)

    @property
    def seeded(self) -> bool:
        """Always."""
        return True

    def load(self, seed: int) -> SplitData:
        """Return inputs [N, D], each column standardised by the training rows, and labels. Raises: DataError."""
        path = file(self.path, "data.path")
        rows = _read(path)
        for name in (self.label, *self.drop):
            if name not in rows.column_names:
                raise DataError(f"{path} has no column {name}{nearest(name, rows.column_names)}")
        labels, class_names = _labels(rows[self.label], path, self.label)
        columns = [name for name in rows.column_names if name not in (self.label, *self.drop)]
        if not columns:
            raise DataError(f"{path} has no column but {', '.join((self.label, *self.drop))}: there are no inputs")
        values = np.stack([_numbers(rows[name], path, name) for name in columns], axis=1)
        train, test = held_out(labels, self.test_share, seed)
        seen = values[train.numpy()]  # a tensor of one index would be taken for a number
        mean, deviation = seen.mean(axis=0), seen.std(axis=0)
        deviation[deviation == 0.0] = 1.0
        inputs = torch.as_tensor((values - mean) / deviation, dtype=torch.float32)
        return SplitData(Split(inputs[train], labels[train]), Split(inputs[test], labels[test]), class_names)


def _read(path: Path) -> pa.Table:
    try:
        rows = pq.read_table(path) if path.suffix == ".parquet" else pyarrow.csv.read_csv(path)
        rows.column_names  # noqa: B018  (they may be no UTF-8)
        return rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        kind = "Parquet" if path.suffix == ".parquet" else "CSV"
        raise DataError(f"{path} is no {kind} file that can be read: {str(error).splitlines()[0]}") from error


def _labels(column: pa.ChunkedArray, path: Path, name: str) -> tuple[torch.Tensor, tuple[str, ...]]:
    if column.null_count:
        raise DataError(f"every row needs a label, and {column.null_count} of column {name} of {path} have none")
    if pa.types.is_nested(column.type):
        raise DataError(f"column {name} of {path} must be numbers or strings, got {column.type}")
    values, labels = np.unique(np.asarray(column.to_pylist()), return_inverse=True)
    if len(values) > _MOST_CLASSES:
        raise DataError(f"column {name} of {path} has {len(values)} different values, too many for classes")
    return torch.as_tensor(labels, dtype=torch.int64).reshape(-1), tuple(str(value) for value in values.tolist())


def _numbers(column: pa.ChunkedArray, path: Path, name: str) -> np.ndarray[Any, Any]:
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"column {name} of {path} must be numbers, got {kind}: encode it, or name it in data.drop")
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())  # Arrow has no cast from bool to float
    values: np.ndarray[Any, Any] = column.cast(pa.float64(), safe=False).to_numpy()
    gaps = int((~np.isfinite(values)).sum())
    if gaps:
        raise DataError(f"column {name} of {path} has {gaps} gaps (or infinite values): fill or drop them")
    return values
