"""Write the tables of imbdyn/trace/schema.py into docs/trace-format.md, between its two markers."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa

from imbdyn.trace.schema import TABLES, Column, Table

PAGE = Path(__file__).with_name("trace-format.md")
BEGIN, END = "<!-- begin: made by docs/make_trace_tables.py -->", "<!-- end -->"


def with_tables(page: str) -> str:
    """Return the page with what stands between its markers made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = "\n".join(_table(table) for table in TABLES.values())
    return f"{before}{BEGIN}\n\n{tables}\n{END}{after}"


def _table(table: Table) -> str:
    lines = [
        f"### {table.name}",
        "",
        f"A row is {table.subject}. Key: {', '.join(f'`{name}`' for name in table.key)}.",
        "",
        "| Column | Type | Unit | What it holds | Source |",
        "| --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*lines, *(_row(column) for column in table.columns), ""])


def _row(column: Column) -> str:
    kind = "name" if pa.types.is_dictionary(column.type) else str(column.type).replace("double", "float64")
    cells = (f"`{column.name}`", kind, column.unit, column.formula, column.source)
    # Markdown would take these for emphasis, a tag and the end of a cell.
    return "| " + " | ".join(re.sub(r"([*<|])", r"\\\1", cell) for cell in cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
