"""
The language of `--where`: conditions over an event's fields, and nothing else.

    order_total >= 100 and customer_country in ["DE", "AT"]
    custom_properties.voucher != null and not (user_id == "u-7")
    order_items[0].price > 9.99 or "cat" in product_name

Python's own parser reads the text, a list of allowed nodes decides what is understood,
and nothing is ever evaluated as Python: no calls, no arithmetic, no attributes of
objects. A field that is absent is null. A comparison of two kinds that have no order
(a text with a number, anything with null) is false, not an error. Numbers are exact.
"""

from __future__ import annotations

import ast
import operator
import warnings
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import msgspec

from bizlog.cli.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable

Getter: TypeAlias = "Callable[[Any], Any]"

MAX_CHARACTERS = 4_096
_WORDS = {"true": True, "false": False, "null": None}
_decoder = msgspec.json.Decoder(float_hook=Decimal)


class Where:
    """
    One condition.

    Args:
        text: The condition.

    Raises:
        CommandError: It cannot be understood; says where and why.
    """

    def __init__(self, text: str) -> None:
        self._holds = _Compiler(text).compile()

    def __call__(self, data: bytes) -> bool:
        """Whether the condition holds for an event, given as JSON."""
        try:
            return bool(self._holds(_decoder.decode(data)))
        except RecursionError:  # deeper than any event of ours
            return False


class _Compiler:
    """Turns the text of a condition into a function of the decoded event."""

    def __init__(self, text: str) -> None:
        # One line, so that columns are positions.
        self._text = " ".join(text.splitlines()).strip()

    def compile(self) -> Getter:
        if not self._text:
            raise self._error("it is empty; write something like  order_total >= 100")
        if len(self._text) > MAX_CHARACTERS:
            raise self._error(f"it is longer than {MAX_CHARACTERS:,} characters")
        try:
            return self._any(self._parsed().body)
        except (RecursionError, MemoryError):
            raise self._error("it is nested too deeply") from None

    def _parsed(self) -> ast.Expression:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return ast.parse(self._text, mode="eval")
        except SyntaxError as error:
            column = max((error.offset or 1) - 1, 0)
            hint = "" if "==" in self._text or "=" not in self._text else _EQUALS
            why = f"it cannot be read: {error.msg}{hint}"
            raise self._error(why, column) from None
        except ValueError as error:  # a null character
            raise self._error(f"it cannot be read: {error}") from None

    def _error(self, why: str, column: int | None = None) -> CommandError:
        if column is None:
            return CommandError(f"--where: {why}")
        return CommandError(
            f"--where: {why} (at character {column + 1})\n"
            f"  {self._text}\n  {' ' * column}^"
        )

    def _error_at(self, node: ast.expr, why: str) -> CommandError:
        before = self._text.encode()[: node.col_offset]  # Python counts bytes
        return self._error(why, len(before.decode()))

    def _any(self, node: ast.expr) -> Getter:
        match node:
            case ast.BoolOp(op=ast.And(), values=values):
                parts = [self._any(value) for value in values]
                return lambda event: all(part(event) for part in parts)
            case ast.BoolOp(values=values):
                parts = [self._any(value) for value in values]
                return lambda event: any(part(event) for part in parts)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                inner = self._any(operand)
                return lambda event: not inner(event)
            case ast.Compare():
                return self._comparison(node)
            case _:
                return self._value(node)

    def _comparison(self, node: ast.Compare) -> Getter:
        sides = [self._value(side) for side in (node.left, *node.comparators)]
        for op in node.ops:
            if type(op) not in _OPERATORS:
                raise self._error_at(
                    node, "'is' is not understood; compare with == or !="
                )
        tests = [_OPERATORS[type(op)] for op in node.ops]
        if len(tests) == 1:
            [left, right], [test] = sides, tests
            return lambda event: test(left(event), right(event))

        def chain(event: Any) -> bool:
            values = [side(event) for side in sides]
            pairs = zip(tests, values, values[1:], strict=False)
            return all(test(left, right) for test, left, right in pairs)

        return chain

    def _value(self, node: ast.expr) -> Getter:
        match node:
            case ast.Name(id=name) if name in _WORDS:
                word = _WORDS[name]
                return lambda _: word
            case ast.Name(id=name):
                return lambda event: _step(event, name)
            case ast.Attribute(value=value, attr=name):
                return self._inside(value, name)
            case ast.Subscript(
                value=value, slice=ast.Constant(value=str() | int() as key)
            ):
                return self._inside(value, key)
            case _:
                constant = self._constant(node)
                return lambda _: constant

    def _inside(self, node: ast.expr, key: str | int) -> Getter:
        if not isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
            raise self._error_at(node, "only a field has something inside")
        whole = self._value(node)
        return lambda event: _step(whole(event), key)

    def _constant(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=bool() | None | str() | int() as value):
                return value
            case ast.Constant(value=float()):
                return Decimal(ast.get_source_segment(self._text, node) or "")
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant() as operand):
                return self._negative(operand)
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                return [self._constant(element) for element in elements]
            case ast.Name(id=name) if name in _WORDS:
                return _WORDS[name]
            case _:
                kind = type(node).__name__
                raise self._error_at(node, _NOT_UNDERSTOOD.get(kind, _ONLY))

    def _negative(self, node: ast.Constant) -> Any:
        value = self._constant(node)
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            raise self._error_at(node, "'-' needs a number")
        # Unary minus would round a decimal to 28 digits.
        return value.copy_negate() if isinstance(value, Decimal) else -value


def _step(value: Any, key: str | int) -> Any:
    """Go one step into a JSON value; what is absent is None."""
    if isinstance(value, dict) and isinstance(key, str):
        return cast("dict[str, Any]", value).get(key)
    if isinstance(value, list) and isinstance(key, int):
        items = cast("list[Any]", value)
        return items[key] if -len(items) <= key < len(items) else None
    return None


def _equal(left: Any, right: Any) -> bool:
    # JSON's true is no number, Python's is.
    if isinstance(left, bool) is not isinstance(right, bool):
        return False
    return bool(left == right)


def _among(left: Any, right: Any) -> bool:
    if isinstance(right, list):
        return any(_equal(left, each) for each in cast("list[Any]", right))
    if isinstance(right, dict):
        return isinstance(left, str) and left in right
    return isinstance(right, str) and isinstance(left, str) and left in right


def _ordered(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(left: Any, right: Any) -> bool:
        if isinstance(left, str) and isinstance(right, str):
            return test(left, right)
        return _is_number(left) and _is_number(right) and test(left, right)

    return compare


def _is_number(value: Any) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


_OPERATORS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: _equal,
    ast.NotEq: lambda left, right: not _equal(left, right),
    ast.Lt: _ordered(operator.lt),
    ast.LtE: _ordered(operator.le),
    ast.Gt: _ordered(operator.gt),
    ast.GtE: _ordered(operator.ge),
    ast.In: _among,
    ast.NotIn: lambda left, right: not _among(left, right),
}

_EQUALS = " (to compare write ==)"
_ONLY = "expected a field, a text, a number, true, false, null or a list of these"
_NOT_UNDERSTOOD = {
    "Call": f"calls are not understood; {_ONLY}",
    "BinOp": f"arithmetic is not understood; {_ONLY}",
}
