import pyarrow as pa
import pytest

from imbdyn.trace.where import MAX_LENGTH, WhereError, parse_where

ROWS = pa.table(
    {
        "n": pa.array([1, 2, 3, None, 2**40], pa.int64()),
        "x": pa.array([0.5, -1.0, float("nan"), 2.0, None]),
        "name": ["a", "b", "it's", "a", "c"],
        "on": [True, False, None, True, False],
    }
)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("n == 2", [1]),
        ("n != 2", [0, 2, 4]),
        ("1 < n <= 3", [1, 2]),
        ("n > 1099511627775", [4]),
        ("x < -0.5", [1]),
        ("n >= 1.5 and x > 0", []),
        ("n == 1 or n == 3 and x > 0", [0]),
        ('(n == 1 or n == 3) and name == "it\'s"', [2]),
        ("not n == 2", [0, 2, 4]),
        ("name in ('a', 'c')", [0, 3, 4]),
        ("name not in ['a']", [1, 2, 4]),
        ("name in ()", []),
        ("n is None", [3]),
        ("n is not None and on", [0]),
        ("on == False", [1, 4]),
        ("x != x", [2]),
        ("n == x", []),
        ("  n == 1\n", [0]),
    ],
)
def test_a_condition_finds_its_rows(text, rows):
    table = ROWS.append_column("i", pa.array(range(5)))
    assert table.filter(parse_where(text, ROWS.schema))["i"].to_pylist() == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no condition"),
        ("n ==", "is no condition: invalid syntax"),
        ("m == 1", "there is no column 'm'; the nearest name is 'name'"),
        ("n", "n is a number, where a condition is needed"),
        ("True", "True is a truth value, where a condition is needed"),
        ("n == 'a'", "n is a number and 'a' a text: they cannot be compared; text stands in quotes"),
        ("n == a", "there is no column 'a'"),
        ("name == 1", "name is a text and 1 a number"),
        ("n == None", "null is asked for with 'is None'"),
        ("n is 1", "'is' can only ask for None, got 1"),
        ("n in 1", r"'in' needs a list such as \(1, 2\), got 1"),
        ("n in (n, 1)", "'in' needs constants, got the column n"),
        ("n == 99999999999999999999", "99999999999999999999 is no number of 64 bits"),
        ("n == " + "9" * 5000, "is no condition: Exceeds the limit"),
        ("n == 1j", "1j has no place in a condition"),
        ("n + 1 == 2", "n \\+ 1 has no place"),
        ("n == 1; import os", "is no condition"),
        ("__import__('os').system('true')", "has no place in a condition"),
        ("n.real == 1", "n.real has no place"),
        ("[x for x in (1,)] == 1", "has no place"),
        ("(lambda: 1)() == 1", "has no place"),
        ("f'{n}' == 'a'", "has no place"),
        ("(n := 1) == 1", "has no place"),
        ("n == 1 if on else on", "has no place"),
        ("n\0== 1", "this is no condition|is no condition"),
        ("not " * 2400 + "on", "nested too deep"),
        ("n" * (MAX_LENGTH + 1), "has at most 10000 characters, got 10001"),
    ],
)
def test_what_is_no_condition_is_told_in_one_sentence(text, message):
    with pytest.raises(WhereError, match=message) as caught:
        parse_where(text, ROWS.schema)
    assert len(str(caught.value)) < 250
