"""The checked parts of an expression, and how they are put together.

What is the same for every row is worked out once, here, on columns of one row.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, TypeAlias

import pyarrow as pa

from transform.expression_functions import Fixed, OfOneType, Signature
from transform.expression_kernels import Values, as_float
from transform.field_types import ARROW_TYPES, INT64_MAX, INT64_MIN, FieldType

Kind: TypeAlias = FieldType | Literal["null"]
Run: TypeAlias = Callable[[Mapping[str, Values]], Values]

STORED: Mapping[Kind, pa.DataType] = {
    "null": pa.null(),
    "timestamp": pa.int64(),
    "string": ARROW_TYPES["string"],
    "int64": ARROW_TYPES["int64"],
    "float64": ARROW_TYPES["float64"],
    "bool": ARROW_TYPES["bool"],
}
"""What each type is inside: a timestamp is its microseconds."""

NUMBERS = ("int64", "float64")
NAMES_SHOWN_MAX = 12  # in an error: a contract may have 500 fields


class ExpressionError(ValueError):
    """An expression that cannot be used: `column N: what is wrong; allowed: what would be right`.

    `column` is the place in the text, from 1.
    """

    def __init__(self, column: int, wrong: str, allowed: str) -> None:
        super().__init__(f"column {column}: {wrong}; allowed: {allowed}")
        self.column = column


@dataclass(frozen=True)
class Node:
    """A checked part. `constant` is its value where every row has the same."""

    kind: Kind
    column: int
    run: Run
    constant: pa.Scalar | None = None


def literal(value: object, column: int) -> Node:
    """The node of a value written in the text."""
    kind: Kind
    if value is None:
        kind = "null"
    elif isinstance(value, bool):
        kind = "bool"
    elif isinstance(value, int):
        if not INT64_MIN <= value <= INT64_MAX:
            raise ExpressionError(column, "a number beyond int64", f"{INT64_MIN} to {INT64_MAX}")
        kind = "int64"
    elif isinstance(value, float) and math.isfinite(value):
        kind = "float64"
    elif isinstance(value, str):
        kind = "string"
    else:
        raise ExpressionError(
            column, f"a literal {value!r}", "text, finite numbers, True, False and None"
        )
    return _constant(kind, pa.scalar(value, STORED[kind]), column)


def _constant(kind: Kind, value: pa.Scalar, column: int) -> Node:
    return Node(kind, column, lambda _: value, value)


def apply(kind: Kind, kernel: Callable[..., Values], nodes: Sequence[Node], column: int) -> Node:
    """The node that gives `kernel` of what `nodes` give."""
    if all(node.constant is not None for node in nodes):
        ones = [pa.repeat(node.constant, 1) for node in nodes]
        return _constant(kind, kernel(*ones)[0], column)
    runs = [node.run for node in nodes]
    return Node(kind, column, lambda columns: kernel(*[run(columns) for run in runs]))


def cast(node: Node, kind: Kind) -> Node:
    """The same value as `kind`: an int64 as float64, None as any."""
    if node.kind == kind:
        return node
    if node.kind == "null":
        return _constant(kind, pa.scalar(None, STORED[kind]), node.column)
    return apply(kind, as_float, [node], node.column)


def as_bools(node: Node, word: str) -> Node:
    if node.kind not in ("bool", "null"):
        raise ExpressionError(
            node.column, f"`{word}` with {a_kind(node.kind)}", "a bool, like `x > 0` or `x != ''`"
        )
    return cast(node, "bool")


def unified(nodes: Sequence[Node], where: str) -> tuple[Kind, list[Node]]:
    """The nodes as the one type that holds them all."""
    kinds = {node.kind for node in nodes} - {"null"}
    if kinds == set(NUMBERS):
        kinds = {"float64"}
    if len(kinds) > 1:
        first = next(node for node in nodes if node.kind != "null")
        other = next(n for n in nodes if n.kind not in ("null", first.kind) and not _both(first, n))
        raise ExpressionError(
            other.column,
            f"{where} of {a_kind(first.kind)} and {a_kind(other.kind)}",
            _towards(first.kind, other.kind),
        )
    kind: Kind = kinds.pop() if kinds else "null"
    return kind, [cast(node, kind) for node in nodes]


def _both(one: Node, other: Node) -> bool:
    return one.kind in NUMBERS and other.kind in NUMBERS


def _towards(one: Kind, other: Kind) -> str:
    if {one, other} == {"timestamp", "string"}:
        return "two of one type; timestamp('2026-11-24T02:03:04Z') is a moment"
    if "string" in (one, other) and (one in NUMBERS or other in NUMBERS):
        return "two of one type; string(number), float(text) and int(text) convert"
    return "two of one type"


def operands(sign: str, left: Node, right: Node) -> str:
    """What an arithmetic operator takes, said to someone who gave it something else."""
    if "timestamp" in (left.kind, right.kind):
        return "numbers; seconds_between(a, b), epoch(t) and timestamp(seconds) for moments"
    if sign == "+" and "string" in (left.kind, right.kind):
        return "two numbers or two texts; string(value) makes a text"
    return "numbers; float(text) and int(value) make numbers"


def joined(kernel: Callable[..., Values], nodes: Sequence[Node], column: int) -> Node:
    return reduce(lambda a, b: apply("bool", kernel, [a, b], column), nodes)


# ---- Calls ----


def fits(signature: Signature, nodes: Sequence[Node]) -> bool:
    return len(signature.takes) == len(nodes) and all(
        _goes(node, takes) for node, takes in zip(nodes, signature.takes, strict=True)
    )


def _goes(node: Node, takes: FieldType | Fixed) -> bool:
    if isinstance(takes, Fixed):
        return node.kind == takes.type and node.constant is not None and node.constant.is_valid
    return node.kind in (takes, "null") or (node.kind == "int64" and takes == "float64")


def call(name: str, signature: Signature, nodes: Sequence[Node], column: int) -> Node:
    """The node of a call that fits its signature."""
    fixed: list[Any] = []
    free: list[Node] = []
    for node, takes in zip(nodes, signature.takes, strict=True):
        if isinstance(takes, Fixed):
            fixed.append(value_of(node))
        else:
            free.append(cast(node, takes))
    wrong = signature.check(*fixed)
    if wrong:
        raise ExpressionError(column, f"{name}: {wrong}", f"{name}{signature}")
    return apply(signature.gives, lambda *values: signature.run(*values, *fixed), free, column)


def value_of(node: Node) -> Any:
    """What a constant node gives, as a Python value; `None` for one that is not constant."""
    return None if node.constant is None else node.constant.as_py()


def of_one_type(name: str, function: OfOneType, nodes: Sequence[Node], column: int) -> Node:
    if len(nodes) < function.least:
        raise ExpressionError(column, f"{name} of {len(nodes)}", f"at least {function.least}")
    kind, nodes = unified(nodes, name)
    if kind not in function.types:
        raise ExpressionError(column, f"{name} of {a_kind(kind)}", " or ".join(function.types))
    return apply(kind, function.run, nodes, column)


# ---- Words ----


def a_kind(kind: Kind) -> str:
    if kind == "null":
        return "None"
    return f"an {kind}" if kind == "int64" else f"a {kind}"


def meant(name: str, known: Iterable[str], what: str) -> str:
    """What someone who wrote `name` may have meant."""
    names = sorted(known)
    close = difflib.get_close_matches(name.lower(), names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    more = ", ..." if len(names) > NAMES_SHOWN_MAX and what == "fields" else ""
    shown = names if what != "fields" else names[:NAMES_SHOWN_MAX]
    return f"{hint}{what} are {', '.join(shown)}{more}" if names else f"no {what} are there"
