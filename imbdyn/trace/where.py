"""Conditions on rows as text, such as `class_id == 3 and loss > 0.5`. They are parsed, never evaluated.

    condition  = condition "and" condition | condition "or" condition | "not" condition | "(" condition ")" | test
    test       = value (("==" | "!=" | "<" | "<=" | ">" | ">=") value)+
               | column ["not"] "in" "(" constant, ... ")" | column "is" ["not"] "None" | a column of truth values
    value      = column | constant
    constant   = number | "text" | True | False

These are Python's own signs and precedence, read by Python's parser into a tree, of which only these nodes are taken.
As in SQL, a comparison with null is neither true nor false, so that its row is left out.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.dataset as ds

from imbdyn.trace._lookup import UnknownNameError, look_up

MAX_LENGTH = 10_000

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class WhereError(ValueError):
    """A condition that cannot be understood; the message says what is wrong with it."""


class _Value(NamedTuple):
    """A column or a constant, and what it is: "number", "text" or "truth value"."""

    expression: Any
    kind: str
    constant: Any = None
    is_whole: bool = False


def parse_where(text: str, schema: pa.Schema) -> ds.Expression:
    """Return a condition on the columns of `schema` as a pyarrow expression. Raises: WhereError."""
    if len(text) > MAX_LENGTH:
        raise WhereError(f"a condition has at most {MAX_LENGTH} characters, got {len(text)}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        return _Parser(schema).condition(tree.body)
    except SyntaxError as error:
        raise WhereError(f"{text[:60]!r} is no condition: {(error.msg or '')[:100]}") from None
    except UnknownNameError as error:
        raise WhereError(str(error)) from None
    except (RecursionError, MemoryError):
        raise WhereError("the condition is nested too deep") from None
    except ValueError as error:  # a null byte, or a number of thousands of digits
        raise error if isinstance(error, WhereError) else WhereError(f"this is no condition: {error}") from None


class _Parser:
    def __init__(self, schema: pa.Schema) -> None:
        self._types = {field.name: field.type for field in schema}

    def condition(self, node: ast.expr) -> ds.Expression:
        if isinstance(node, ast.BoolOp):
            join = operator.and_ if isinstance(node.op, ast.And) else operator.or_
            return reduce(join, map(self.condition, node.values))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self.condition(node.operand)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            tests = [self._test(a, op, b) for a, op, b in zip(sides, node.ops, sides[1:], strict=False)]
            return reduce(operator.and_, tests)
        value = self._value(node)
        if value.kind != "truth value" or not isinstance(node, ast.Name):
            raise WhereError(f"{_shown(node)} is a {value.kind}, where a condition is needed")
        return value.expression

    def _test(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> ds.Expression:
        if isinstance(op, ast.In | ast.NotIn):
            if not isinstance(right, ast.Tuple | ast.List):
                raise WhereError(f"'in' needs a list such as (1, 2), got {_shown(right)}")
            column, items = self._column(left), [self._value(item) for item in right.elts]
            for item, node in zip(items, right.elts, strict=True):
                self._check_kinds(column, item, left, node)
                if isinstance(node, ast.Name):
                    raise WhereError(f"'in' needs constants, got the column {node.id}")
            tests = (operator.eq(*_alike(column, item)) for item in items)
            found = reduce(operator.or_, tests, ds.scalar(False))
            return found if isinstance(op, ast.In) else ~found
        if isinstance(op, ast.Is | ast.IsNot):
            if not (isinstance(right, ast.Constant) and right.value is None):
                raise WhereError(f"'is' can only ask for None, got {_shown(right)}")
            null = self._column(left).expression.is_null()
            return null if isinstance(op, ast.Is) else ~null
        a, b = self._value(left), self._value(right)
        self._check_kinds(a, b, left, right)
        return _COMPARE[type(op)](*_alike(a, b))

    def _check_kinds(self, a: _Value, b: _Value, left: ast.expr, right: ast.expr) -> None:
        if a.kind != b.kind:
            raise WhereError(
                f"{_shown(left)} is a {a.kind} and {_shown(right)} a {b.kind}: they cannot be compared"
                + ("; text stands in quotes" if "text" in (a.kind, b.kind) else "")
            )

    def _column(self, node: ast.expr) -> _Value:
        if not isinstance(node, ast.Name):
            raise WhereError(f"{_shown(node)} is no column")
        return self._value(node)

    def _value(self, node: ast.expr) -> _Value:
        if isinstance(node, ast.Name):
            type_ = look_up("column", node.id, self._types)
            return _Value(ds.field(node.id), _kind(type_), is_whole=pa.types.is_integer(type_))
        sign = 1
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            sign, node = -1, node.operand
        if isinstance(node, ast.Constant):
            value = node.value
            if isinstance(value, bool | str) and sign == 1:
                return _Value(ds.scalar(value), "text" if isinstance(value, str) else "truth value", value)
            if isinstance(value, int | float) and not isinstance(value, bool):
                if isinstance(value, int) and not -(2**63) <= sign * value < 2**63:
                    raise WhereError(f"{sign * value} is no number of 64 bits")
                return _Value(ds.scalar(sign * value), "number", sign * value, isinstance(value, int))
            if value is None:
                raise WhereError("null is asked for with 'is None'")
        raise WhereError(f"{_shown(node)} has no place in a condition")


def _alike(a: _Value, b: _Value) -> tuple[Any, Any]:
    """Return both sides as expressions; whole numbers beside others as float64, which Arrow would not do above 2^24."""
    if a.kind != "number" or a.is_whole == b.is_whole:
        return a.expression, b.expression
    return (a.expression if not a.is_whole else _real(a)), (b.expression if not b.is_whole else _real(b))


def _real(value: _Value) -> Any:
    if value.constant is not None:
        return ds.scalar(float(value.constant))
    return value.expression.cast(pa.float64(), safe=False)


def _kind(type_: pa.DataType) -> str:
    if pa.types.is_boolean(type_):
        return "truth value"
    return "text" if pa.types.is_string(type_) else "number"


def _shown(node: ast.AST) -> str:
    shown = ast.unparse(node)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
