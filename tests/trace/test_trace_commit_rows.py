"""The rows of a commit: C++ and Python make the same bytes, and Arrow reads from them what was appended."""

import math

import numpy as np
import pyarrow as pa
import pytest

from imbdyn.trace import Names, Nullable
from imbdyn.trace._commit_rows import PythonCommitRows, commit_rows
from imbdyn.trace._record import RecordEncoder
from imbdyn.trace._rows import TableRows
from imbdyn.trace.schema import TABLES

ENCODER = RecordEncoder()
ROWS = [TableRows(table) for table in TABLES.values()]
DTYPES = {pa.float64(): np.float64, pa.int64(): np.int64, pa.int32(): np.int32, pa.bool_(): np.bool_}


def test_the_extension_serves_where_it_was_built():
    pytest.importorskip("imbdyn._C")
    assert not isinstance(commit_rows(1, ENCODER), PythonCommitRows)


def into(rows, table, columns):
    number = list(TABLES).index(table)
    if not rows.append(number, columns):
        count, cells = ROWS[number].parse(columns)
        if count:
            rows.append_cells(number, count, cells)


def read(*messages):
    return pa.ipc.open_stream(ENCODER.schema_message + b"".join(messages)).read_all()


SPECIAL = [0.0, -0.0, 1.5, math.nan, math.inf, -math.inf, 5e-324]
TEXTS = ["", "*", "net.0.weight", "café", "\N{SNOWMAN}" * 5, "a\0b"]


def elements(random, column, n):
    """Values that the column can hold."""
    if column.type == pa.bool_():
        return random.integers(0, 2, n).astype(bool).tolist()
    if column.type == pa.float64():
        return random.choice(SPECIAL, n).tolist()
    bits = 31 if column.type == pa.int32() else 63
    return random.integers(-(2**bits), 2**bits, n).tolist()


def given_columns(random):
    """A table, what is given for its columns, in every form that is taken, and the values that it means."""
    table = TABLES[random.choice(list(TABLES))]
    n = int(random.choice([0, 1, 2, 7, 8, 9, 64, 100]))
    given, means = {}, {}
    for column in table.columns:
        if pa.types.is_dictionary(column.type):
            names = random.choice(TEXTS, n).tolist()
            form = random.choice(["list", "array", "Names", "one"])
            if form == "one":
                names = [random.choice(TEXTS).item()] * n
            given[column.name] = {
                "list": names,
                "array": np.array(names, dtype=object),
                "Names": Names(names or ["none"], np.arange(n)),
                "one": names[0] if n else "none",
            }[form]
            means[column.name] = names
            continue
        drawn = elements(random, column, n)
        values = np.array(drawn, DTYPES[column.type])
        valid = random.integers(0, 2, n).astype(bool)
        forms = ["array", "int64", "strided", "list", "scalar", "nullable", "masked", "unmasked", "absent", "left out"]
        form = random.choice(forms[:5] if column.name in table.key else forms)
        if form == "scalar":
            drawn = drawn[:1] * n
        value = {
            "array": values,
            "int64": values.astype(np.int64) if column.type == pa.int32() else values,
            "strided": np.repeat(values, 2)[::2],
            "list": drawn if n else values,
            "scalar": drawn[0] if n else elements(random, column, 1)[0],
            "nullable": Nullable(values, valid),
            "masked": np.ma.MaskedArray(values, ~valid),
            "unmasked": np.ma.MaskedArray(values),
            "absent": None,
            "left out": None,
        }[form]
        if form != "left out":
            given[column.name] = value
        if form in ("absent", "left out"):
            drawn = [None] * n
        elif form in ("nullable", "masked"):
            drawn = [element if is_valid else None for element, is_valid in zip(drawn, valid, strict=True)]
        means[column.name] = drawn
    given["step"], means["step"] = np.arange(n), list(range(n))  # something must say how many rows there are
    return table.name, given, means


@pytest.mark.parametrize("seed", range(100))
def test_both_kinds_make_the_same_bytes_and_arrow_reads_what_was_appended(seed):
    random = np.random.default_rng(seed)
    appends = [given_columns(random) for _ in range(random.integers(0, 5))]
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
