"""The rows of a commit: C++ and Python make the same bytes, and Arrow reads from them what was appended."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imbdyn.trace import Names, Nullable
from imbdyn.trace._commit_rows import PythonCommitRows, commit_rows
from imbdyn.trace._record import RecordEncoder
from imbdyn.trace._rows import TableRows
from imbdyn.trace.schema import TABLES

ENCODER = RecordEncoder()
ROWS = [TableRows(table) for table in TABLES.values()]
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
DTYPES = {pa.float64(): np.float64, pa.int64(): np.int64, pa.int32(): np.int32, pa.bool_(): np.bool_}


def test_the_extension_serves_where_it_was_built():
    pytest.importorskip("imbdyn._C")
    assert not isinstance(commit_rows(1, ENCODER), PythonCommitRows)


def into(rows, table, columns):
    number = list(TABLES).index(table)
    if not rows.append(number, columns):
        rows.append_cells(number, *ROWS[number].parse(columns))


def read(*messages):
    return pa.ipc.open_stream(ENCODER.schema_message + b"".join(messages)).read_all()


@st.composite
def given_columns(draw):
    """A table, what is given for its columns, and the values that it means."""
    table = draw(st.sampled_from(list(TABLES)))
    n = draw(st.integers(0, 20))
    given, means = {}, {}
    for column in TABLES[table].columns:
        required = column.name in TABLES[table].key
        if pa.types.is_dictionary(column.type):
            names = draw(st.lists(NAMES, min_size=n, max_size=n))
            form = draw(st.sampled_from(["list", "array", "Names", "one"]))
            if form == "one":
                value = draw(NAMES)
                names = [value] * n
            elif form == "Names":
                value = Names(names or ["none"], np.arange(n))
            else:
                value = names if form == "list" else np.array(names, dtype=object)
            given[column.name], means[column.name] = value, names
            continue
        dtype = DTYPES[column.type]
        elements = {
            "f": st.floats(),
            "i": st.integers(np.iinfo(np.int32).min, np.iinfo(np.int32).max),
            "b": st.booleans(),
        }[np.dtype(dtype).kind]
        drawn = draw(st.lists(elements, min_size=n, max_size=n))
        values = np.array(drawn, dtype)
        valid = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), np.bool_)
        forms = ["array", "strided", "list", "scalar"] + (
            [] if required else ["nullable", "masked", "absent", "left out"]
        )
        form = draw(st.sampled_from(forms))
        if column.type == pa.int32() and form == "array" and draw(st.booleans()):
            values = values.astype(np.int64)
        absent = form in ("absent", "left out")
        nulls = ~valid if form in ("nullable", "masked") else np.full(n, absent)
        if form == "scalar":
            drawn = [draw(elements)] * n
            value = drawn[0] if n else draw(elements)
        else:
            value = {
                "array": values,
                "strided": np.repeat(values, 2)[::2],
                "list": drawn if n else np.empty(0, dtype),
                "nullable": Nullable(values, valid),
                "masked": np.ma.MaskedArray(values, ~valid),
                "absent": None,
                "left out": None,
            }[form]
        if form != "left out":
            given[column.name] = value
        means[column.name] = [None if null else element for element, null in zip(drawn, nulls, strict=True)]
    # something must say how many rows there are
    given["step"], means["step"] = np.arange(n), list(range(n))
    return table, given, means


@settings(deadline=None)
@given(st.lists(given_columns(), max_size=4))
def test_both_kinds_make_the_same_bytes_and_arrow_reads_what_was_appended(appends):
    kinds = [PythonCommitRows(7, ENCODER), commit_rows(7, ENCODER)]
    for rows in kinds:
        for table, columns, _ in appends:
            into(rows, table, columns)
    messages = [rows.encode() for rows in kinds]
    assert messages[0] == messages[1]
    (commit,) = read(messages[0]).to_pylist()
    assert commit["record"] == 7
    for table in TABLES:
        expected = []
        for other, _, means in appends:
            if other == table:
                expected += [{name: means[name][i] for name in means} for i in range(len(means["step"]))]
        assert repr(commit[table]) == repr(expected)
    assert kinds[0].rows == kinds[1].rows == sum(len(means["step"]) for _, _, means in appends)


@pytest.mark.parametrize("make", [PythonCommitRows, commit_rows])
def test_rows_are_forgotten_and_the_next_commit_begins(make):
    rows = make(1, ENCODER)
    for _ in range(2):
        into(rows, "steps", {"step": 1, "split": "train", "loss": math.nan})
    rows.clear()
    assert (rows.record, rows.rows) == (1, 0)
    into(rows, "steps", {"step": 2, "split": "train"})
    first = rows.encode()
    rows.begin_next()
    assert (rows.record, rows.rows) == (2, 0)
    into(rows, "classes", {"step": 3, "split": "train", "class_id": np.arange(3)})
    one, two = read(first, rows.encode()).to_pylist()
    assert [row["step"] for row in one["steps"]] == [2]
    assert one["steps"][0]["loss"] is None
    assert (two["record"], two["steps"], [row["class_id"] for row in two["classes"]]) == (2, [], [0, 1, 2])


@pytest.mark.parametrize("make", [PythonCommitRows, commit_rows])
def test_what_is_wrong_is_left_to_the_errors_of_python(make):
    rows = make(1, ENCODER)
    number = list(TABLES).index("classes")
    key = {"step": 1, "split": "train", "class_id": np.arange(2)}
    for wrong in (
        {"los": 1.0},
        {"loss": np.ones(3)},
        {"loss": np.ones((2, 1))},
        {"loss": np.ones(2, np.float32)},
        {"count": 1.0},
        {"count": True},
        {"count": 2**63},
        {"class_id": np.array([0, 2**31])},
        {"class_id": Nullable(np.arange(2), np.ones(2, np.bool_))},
        {"loss": Nullable(np.ones(2), np.ones(3, np.bool_))},
        {"split": "\udcff"},
        {"split": ["train", 1]},
        {"split": None},
        {"step": None},
    ):
        assert rows.append(number, {**key, **wrong}) is False, wrong
    assert rows.append(number, {"step": 1, "class_id": 0}) is False
    assert rows.rows == 0
