"""A trace of every released schema version, made by that version's writer, is read to the last bit."""

import json
from pathlib import Path

import pytest

from imbdyn.trace import open_trace
from imbdyn.trace.check import check
from imbdyn.trace.schema import SCHEMA_VERSION, TABLES

GOLDEN = Path(__file__).parent / "golden"


def test_every_version_has_one():
    versions = {int(path.stem.split("-")[1]) for path in GOLDEN.glob("version-*.json")}
    assert versions == set(range(1, SCHEMA_VERSION + 1))


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
def test_the_golden_trace_is_read(version):
    place = GOLDEN / f"version-{version}"
    expected = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
    trace = open_trace(place)
    assert trace.run["class_names"] == ["a", "b", "ü"]
    for table, rows in expected.items():
        assert trace.table(table, list(rows[0])).to_pylist() == rows
        assert trace.dataset(table).count_rows() == len(rows)
    assert set(expected) <= set(TABLES)
    assert trace.damage == []
    assert check(place).problems == []
