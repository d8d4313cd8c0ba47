"""Read a trace, finished or still being written: lazily as datasets, or as one DataFrame a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from imbdyn.trace._format import PART_NAME
from imbdyn.trace._lookup import look_up, look_up_table
from imbdyn.trace.run_file import read_run


def open_trace(path: str | os.PathLike[str]) -> Trace:
    """Open the trace in the folder `path`.

    Raises: TraceError if it is not a trace, holds several runs, or was written by a newer imbdyn.
    """
    return Trace(path)


class Trace:
    """A trace on disk. Names come as plain strings, which sort, group and join without regard to categories.

    A run that goes on may be read: each call sees the parts that are there then, `run` is as of opening.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        #: The run's folder.
        self.path = Path(path)
        #: The contents of run.json.
        self.run: dict[str, Any] = read_run(self.path)

    def __repr__(self) -> str:
        return f"Trace({str(self.path)!r}, {self.run.get('status')})"

    def dataset(self, name: str) -> ds.Dataset:
        """Return a table as a pyarrow dataset, in the order of its parts; nothing is read yet.

        A table that no part holds is an empty dataset with that table's schema. Raises: KeyError for an unknown name.
        """
        schema = _with_plain_names(look_up_table(name).schema())
        folder = self.path.absolute() / name  # Arrow would take a relative path such as "s3:x" for a URI
        parts = sorted(path for path in folder.glob("*") if PART_NAME.fullmatch(path.name))
        return ds.dataset([str(part) for part in parts], schema=schema, format="parquet")

    def table(self, name: str, columns: Sequence[str] | None = None, filter: ds.Expression | None = None) -> pa.Table:
        """Return a table's rows, sorted by its key.

        Args:
            columns: read and return only these.
            filter: a condition such as `pyarrow.dataset.field("step") > 100`; row groups it rules out are not read.
        """
        table = look_up_table(name)
        known = {column.name: column for column in table.columns}
        wanted = [look_up(f"column of {name}", column, known).name for column in columns or known]
        read = self.dataset(name).to_table(columns=list(dict.fromkeys([*wanted, *table.key])), filter=filter)
        return read.sort_by([(column, "ascending") for column in table.key]).select(wanted)

    @property
    def steps(self) -> pd.DataFrame:
        """A row per step that closed a window, or evaluation."""
        return self._frame("steps")

    @property
    def classes(self) -> pd.DataFrame:
        """A row per step, split and class, from the logits."""
        return self._frame("classes")

    @property
    def parameters(self) -> pd.DataFrame:
        """A row per sampled step and parameter."""
        return self._frame("parameters")

    @property
    def class_gradients(self) -> pd.DataFrame:
        """A row per sampled step, parameter and class; parameter "*" is the whole network."""
        return self._frame("class_gradients")

    @property
    def class_gradient_pairs(self) -> pd.DataFrame:
        """A row per sampled step, parameter and two classes."""
        return self._frame("class_gradient_pairs")

    @property
    def features(self) -> pd.DataFrame:
        """A row per evaluation and layer."""
        return self._frame("features")

    @property
    def class_features(self) -> pd.DataFrame:
        """A row per evaluation, layer and class."""
        return self._frame("class_features")

    @property
    def classifier(self) -> pd.DataFrame:
        """A row per step and class: its row of the classifier."""
        return self._frame("classifier")

    def findings(self) -> pd.DataFrame:
        """Return the phenomena of imbalanced training that this trace shows, with effect sizes."""
        from imbdyn.findings import findings

        return findings(self)

    def _frame(self, name: str) -> pd.DataFrame:
        # A bool column with nulls would become objects, which select no rows.
        frame: pd.DataFrame = self.table(name).to_pandas(types_mapper={pa.bool_(): pd.BooleanDtype()}.get)
        return frame


def _with_plain_names(schema: pa.Schema) -> pa.Schema:
    """Replace dictionary types by the type of their values: Arrow neither sorts nor groups dictionaries."""
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field for field in schema
    ]
    return pa.schema(fields, metadata=schema.metadata)
