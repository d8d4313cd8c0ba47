import runpy
from pathlib import Path

from imbdyn.trace.schema import TABLES

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_has_the_tables_of_the_schema():
    page = (DOCS / "trace-format.md").read_text(encoding="utf-8")
    made = runpy.run_path(str(DOCS / "make_trace_tables.py"))["with_tables"](page)
    assert made == page, "run: python docs/make_trace_tables.py"
    assert all(f"### {name}\n" in page for name in TABLES)
