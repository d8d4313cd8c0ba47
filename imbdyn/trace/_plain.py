"""Rows as readers return them: a table's columns in its order, names as plain strings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from imbdyn.trace._damage import UntrustedError
from imbdyn.trace._format import plain_type
from imbdyn.trace.schema import Table

#: What no file holds, since it is the same in all of its rows: the columns that tell several runs, or ranks, apart.
LABEL_COLUMNS = {
    field.name: field
    for field in (
        pa.field("run", pa.string(), metadata={"unit": "", "formula": "name of the run", "source": ""}),
        pa.field("rank", pa.int32(), metadata={"unit": "", "formula": "rank of the process", "source": ""}),
    )
}

#: Values of such columns, in the order in which they stand in front of the table's own.
Labels = Mapping[str, str | int]


def plain_schema(table: Table, labels: Iterable[str] = ()) -> pa.Schema:
    """Return a table's schema with its metadata and plain names: Arrow neither sorts nor groups dictionaries.

    `labels` are the names of the columns in front.
    """
    schema = table.schema()
    fields = [field.with_type(plain_type(field.type)) for field in schema]
    return pa.schema([*(LABEL_COLUMNS[name] for name in labels), *fields], metadata=schema.metadata)


def labelled(rows: pa.Table, labels: Labels) -> pa.Table:
    """Return rows with their labels in front."""
    for place, (name, value) in enumerate(labels.items()):
        field = LABEL_COLUMNS[name]
        rows = rows.add_column(place, field, pa.repeat(pa.scalar(value, field.type), rows.num_rows))
    return rows


def check_columns(table: Table, found: pa.Schema) -> None:
    """Check the types of the columns that are there. Raises: UntrustedError if one differs or the key is not whole."""
    for field in plain_schema(table):
        indices = found.get_all_field_indices(field.name)
        if len(indices) > 1:
            raise UntrustedError(f"it has {len(indices)} columns {field.name}")
        if not indices and field.name in table.key:
            raise UntrustedError(f"it lacks the column {field.name} of its key")
        if indices and plain_type(found.field(indices[0]).type) != field.type:
            raise UntrustedError(f"{field.name} is {found.field(indices[0]).type}, and {field.type} is right")


def conform(table: Table, rows: pa.Table | None) -> pa.Table:
    """Return rows with exactly the table's columns: one that is lacking is null, an unknown one is left out.

    Without `rows` there are none. Raises: UntrustedError as check_columns.
    """
    schema = plain_schema(table)
    if rows is None:
        return schema.empty_table()
    check_columns(table, rows.schema)
    columns = [
        rows[field.name].cast(field.type) if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
