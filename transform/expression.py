"""Expressions over columns: `temp_c if status != 'fault' else None`, type-checked when read.

    text ──Python's own parser──▶ syntax tree ──checked, by type──▶ a tree of Arrow kernels

Values: string, int64, float64, bool, timestamp and None. Operators: `+ - * / // % **` on numbers
(`/` and `**` give a float64), `+` joins text, `< <= == != >= >` also chained, `in` and `not in` a
list of literals, `and or not`, `a if c else b`, `is None`, `is not None`, and the functions of
`expression_functions`. An int64 goes wherever a float64 does, as the nearest one.

Data never raises: what has no value (overflow, division by zero, the log of -1, a text that is no
number) is null, and so is what is made of a null, a comparison and a condition too. Only `and` and
`or` may know better (`False and null` is false); `coalesce` and `is None` take nulls in.

Not there: assignment, loops, `lambda`, comprehensions, attributes, indexes, formatted text, dates
by zone, random numbers, the time now, other rows. The same row gives the same value, always.
"""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import pyarrow as pa

from transform.expression_compiler import Compiler
from transform.expression_kernels import Values, finite, moments
from transform.expression_nodes import ExpressionError, Node
from transform.field_types import ARROW_TYPES, FieldType

__all__ = ["Expression", "ExpressionError", "parse"]

TEXT_MAX = 2_000  # characters: a page; Python's parser takes milliseconds for it
NODES_MAX = 300  # of the syntax tree: each is a kernel or two for every batch

INSTEAD = {"&&": "and", "||": "or", "<>": "!=", "===": "==", "?": "a if condition else b"}
EXAMPLE = "an expression, like `temp * 1.8 + 32`"
ESCAPES = "\\'\"nt"  # after a backslash in a literal; any other is likely a pattern's


@dataclass(frozen=True)
class Expression:
    """What `parse` read: `type` is the type of its values, `names` the columns it reads."""

    text: str
    type: FieldType
    names: tuple[str, ...]
    _run: Callable[[Mapping[str, Values]], Values] = field(repr=False, compare=False)
    _timestamps: frozenset[str] = field(repr=False, compare=False)

    def evaluate(self, columns: Mapping[str, Columns], rows: int) -> pa.Array:
        """Its value for each of `rows` rows, null where there is none. Data never raises.

        `columns` holds at least `names`, each of the type it was parsed with.
        """
        values = self._run({name: self._column(name, columns[name]) for name in self.names})
        if isinstance(values, pa.Scalar):
            values = pa.repeat(values, rows)
        return values.cast(ARROW_TYPES[self.type])

    def _column(self, name: str, column: Columns) -> pa.Array:
        """As the kernels take it: one array, moments as numbers, nothing that is no value."""
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if name in self._timestamps:
            return moments(array.cast(pa.int64()))
        return finite(array) if array.type == pa.float64() else array


Columns: TypeAlias = "pa.Array | pa.ChunkedArray"


def parse(text: str, types: Mapping[str, FieldType]) -> Expression:
    """The expression in `text` over columns of these types. Raises `ExpressionError`."""
    compiler = Compiler(types)
    node = compiler.node(_tree(text))
    names = tuple(compiler.names)
    kind = _named(node)
    return Expression(
        text, kind, names, node.run, frozenset(n for n in names if types[n] == "timestamp")
    )


def _named(node: Node) -> FieldType:
    if node.kind == "null":
        raise ExpressionError(node.column, "it is always None", "something that has a value")
    return node.kind


def _tree(text: str) -> ast.expr:
    """The text's syntax tree, its columns those of `text`. Line ends are spaces."""
    if len(text) > TEXT_MAX:
        raise ExpressionError(
            TEXT_MAX + 1, f"{len(text)} characters", f"an expression of at most {TEXT_MAX}"
        )
    line = "".join(" " if letter in "\r\n\t\f" else letter for letter in text)
    start = len(line) - len(line.lstrip(" "))
    if start == len(line):
        raise ExpressionError(1, "it is empty", EXAMPLE)
    body = _parsed(line[start:], text, start)
    _judge_tokens(line[start:], start)
    nodes = list(ast.walk(body))
    if len(nodes) > NODES_MAX:
        raise ExpressionError(1, f"{len(nodes)} parts", f"at most {NODES_MAX}")
    return _shifted(line, start, body)


def _parsed(line: str, text: str, start: int) -> ast.expr:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes and `is`, which are judged here
            return ast.parse(line, mode="eval").body
    except SyntaxError as error:
        raise _syntax_error(text, start, error) from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise ExpressionError(1, f"it cannot be read: {error}", EXAMPLE) from None


def _shifted(line: str, start: int, body: ast.expr) -> ast.expr:
    """The same tree, its offsets those of characters in `line`, where Python counts bytes."""
    encoded = line[start:].encode()
    for node in ast.walk(body):
        if isinstance(node, ast.expr):
            node.col_offset = start + len(encoded[: node.col_offset].decode(errors="ignore"))
    return body


def _syntax_error(text: str, start: int, error: SyntaxError) -> ExpressionError:
    for written, instead in INSTEAD.items():
        if written in text:
            return ExpressionError(text.index(written) + 1, f"no operator {written!r}", instead)
    at = start + (error.offset or 0) - 1
    if text[at : at + 1] == "=":
        return ExpressionError(at + 1, "no operator '='", "== to compare")
    ends = not 0 <= at < len(text)
    return ExpressionError(
        len(text) + 1 if ends else at + 1,
        f"{error.msg}, at the end" if ends else str(error.msg),
        EXAMPLE,
    )


def _judge_tokens(line: str, start: int) -> None:
    """Refuse what the tree no longer shows: comments, joined literals, escapes of patterns."""
    before = 0
    for token in tokenize.generate_tokens(io.StringIO(line).readline):
        column = start + token.start[1] + 1
        if token.type == tokenize.COMMENT:
            raise ExpressionError(column, "a comment", "TOML comments, on a line of their own")
        if token.type == tokenize.STRING:
            if before == tokenize.STRING:
                raise ExpressionError(column, "two texts side by side", "a comma or + between")
            _judge_escapes(token.string, column)
        before = token.type


def _judge_escapes(literal: str, column: int) -> None:
    quote = min(literal.find(mark) for mark in "'\"" if mark in literal)
    if "r" in literal[:quote].lower():
        return
    at = literal.find("\\")
    while at >= 0:
        if literal[at + 1] not in ESCAPES:
            raise ExpressionError(
                column + at, f"the escape {literal[at : at + 2]}", f"r{literal} for a pattern"
            )
        at = literal.find("\\", at + 2)
