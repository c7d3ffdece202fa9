"""A syntax tree to a tree of Arrow kernels, every type known and every mistake named."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from functools import reduce
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from transform.expression_functions import ARITHMETIC, FUNCTIONS, NAMES, OF_ONE_TYPE
from transform.expression_kernels import Values, as_float, concat, int_negate, is_in
from transform.expression_nodes import (
    NUMBERS,
    STORED,
    ExpressionError,
    Node,
    a_kind,
    apply,
    as_bools,
    call,
    cast,
    fits,
    joined,
    literal,
    meant,
    of_one_type,
    operands,
    unified,
    value_of,
)
from transform.field_types import FieldType

DEPTH_MAX = 50  # of one part in another: far under Python's own limit

OPERATORS: Mapping[type, str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
}
COMPARISONS: Mapping[type, Callable[..., Values]] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
INSTEAD: Mapping[type, tuple[str, str]] = {
    ast.Attribute: ("a dot", "field names, and functions like lower(name)"),
    ast.Subscript: ("an index", "substring(text, start, length)"),
    ast.JoinedStr: ("a formatted text", "concat(...) or +"),
    ast.BitAnd: ("no operator '&'", "and"),
    ast.BitOr: ("no operator '|'", "or"),
    ast.BitXor: ("no operator '^'", "** for powers, != for bools"),
    ast.Invert: ("no operator '~'", "not"),
}
WRITTEN = {"true": "True", "false": "False", "null": "None", "none": "None", "NULL": "None"}


class Compiler:
    """One text's tree. `names` are the columns met, in their order."""

    def __init__(self, types: Mapping[str, FieldType]) -> None:
        self.types = types
        self.names: dict[str, None] = {}
        self.depth = 0
        self.parts: Mapping[type, Callable[[Any], Node]] = {
            ast.Constant: self._constant,
            ast.Name: self._name,
            ast.UnaryOp: self._unary,
            ast.BinOp: self._binary,
            ast.BoolOp: self._logic,
            ast.Compare: self._compare,
            ast.IfExp: self._conditional,
            ast.Call: self._call,
        }

    def node(self, tree: ast.expr) -> Node:
        """The checked part that `tree` is. Raises `ExpressionError`."""
        part = self.parts.get(type(tree))
        if part is None:
            wrong, allowed = INSTEAD.get(
                type(tree),
                (f"{type(tree).__name__} is not in the language", "operators and functions"),
            )
            raise ExpressionError(tree.col_offset + 1, wrong, allowed)
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise ExpressionError(tree.col_offset + 1, "too deep", f"{DEPTH_MAX} parts in another")
        node = part(tree)
        self.depth -= 1
        return node

    # ---- Values ----

    def _constant(self, tree: ast.Constant) -> Node:
        return literal(tree.value, tree.col_offset + 1)

    def _name(self, tree: ast.Name) -> Node:
        return self._field(tree.id, tree.col_offset + 1)

    def _field(self, name: str, column: int) -> Node:
        if name not in self.types:
            if name in WRITTEN:
                raise ExpressionError(column, f"no field {name!r}", WRITTEN[name])
            raise ExpressionError(column, f"no field {name!r}", meant(name, self.types, "fields"))
        self.names[name] = None
        return Node(self.types[name], column, lambda columns: columns[name])

    # ---- Operators ----

    def _unary(self, tree: ast.UnaryOp) -> Node:
        column = tree.col_offset + 1
        if isinstance(tree.op, ast.USub) and isinstance(tree.operand, ast.Constant):
            value = tree.operand.value
            if type(value) is int:  # -2**63 is an int64, 2**63 is not
                return literal(-value, column)
        operand = self.node(tree.operand)
        if isinstance(tree.op, ast.Not):
            return apply("bool", pc.invert, [as_bools(operand, "not")], column)
        if isinstance(tree.op, ast.Invert):
            raise ExpressionError(column, *INSTEAD[ast.Invert])
        if operand.kind not in NUMBERS:
            raise ExpressionError(column, f"a sign before {a_kind(operand.kind)}", "numbers")
        if isinstance(tree.op, ast.UAdd):
            return operand
        kernel = int_negate if operand.kind == "int64" else pc.negate
        return apply(operand.kind, kernel, [operand], column)

    def _binary(self, tree: ast.BinOp) -> Node:
        column = tree.col_offset + 1
        left, right = self.node(tree.left), self.node(tree.right)
        sign = OPERATORS.get(type(tree.op))
        if sign is None:
            wrong, allowed = INSTEAD.get(
                type(tree.op), (f"no operator {type(tree.op).__name__}", " ".join(ARITHMETIC))
            )
            raise ExpressionError(right.column, wrong, allowed)
        if sign == "+" and left.kind == right.kind == "string":
            return apply("string", concat, [left, right], column)
        for node in (left, right):
            if node.kind not in NUMBERS:
                raise ExpressionError(
                    node.column, f"{sign!r} with {a_kind(node.kind)}", operands(sign, left, right)
                )
        of_int, of_float = ARITHMETIC[sign]
        if of_int and left.kind == right.kind == "int64":
            return apply("int64", of_int, [left, right], column)
        return apply("float64", of_float, [cast(n, "float64") for n in (left, right)], column)

    def _logic(self, tree: ast.BoolOp) -> Node:
        word, kernel = (
            ("and", pc.and_kleene) if isinstance(tree.op, ast.And) else ("or", pc.or_kleene)
        )
        nodes = [as_bools(self.node(value), word) for value in tree.values]
        return joined(kernel, nodes, tree.col_offset + 1)

    def _conditional(self, tree: ast.IfExp) -> Node:
        test = as_bools(self.node(tree.test), "if")
        kind, (yes, no) = unified([self.node(tree.body), self.node(tree.orelse)], "if")
        return apply(kind, pc.if_else, [test, yes, no], tree.col_offset + 1)

    def _compare(self, tree: ast.Compare) -> Node:
        operator, right = tree.ops[0], tree.comparators[0]
        if len(tree.ops) == 1 and isinstance(operator, (ast.Is, ast.IsNot)):
            return self._is_none(tree.left, operator, right)
        if len(tree.ops) == 1 and isinstance(operator, (ast.In, ast.NotIn)):
            return self._membership(tree.left, operator, right)
        for operator, right in zip(tree.ops, tree.comparators, strict=True):
            if type(operator) not in COMPARISONS:
                raise ExpressionError(
                    right.col_offset + 1, "`is` or `in` in a chain", "`and` between comparisons"
                )
        return self._chain(tree)

    def _chain(self, tree: ast.Compare) -> Node:
        """`a < b <= c`, each part worked out once: chains in chains would double at each depth."""
        nodes = [self.node(part) for part in (tree.left, *tree.comparators)]
        tests = [_test(sign, *pair) for sign, pair in zip(tree.ops, pairwise(nodes), strict=True)]

        def run(*values: Values) -> Values:
            found = [test(*pair) for test, pair in zip(tests, pairwise(values), strict=True)]
            return reduce(pc.and_kleene, found)

        return apply("bool", run, nodes, tree.col_offset + 1)

    def _is_none(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> Node:
        if not (isinstance(right, ast.Constant) and right.value is None):
            raise ExpressionError(right.col_offset + 1, "`is` with a value", "is None, or ==")
        node = self.node(left)
        kernel = pc.is_null if isinstance(operator, ast.Is) else pc.is_valid
        return apply("bool", kernel, [node], node.column)

    def _membership(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> Node:
        node = self.node(left)
        if not isinstance(right, (ast.Tuple, ast.List, ast.Set)) or not right.elts:
            raise ExpressionError(
                right.col_offset + 1,
                "`in` without a list of values",
                "like ('a', 'b') or ('a',); contains(text, 'part') looks inside a text",
            )
        items = [self.node(item) for item in right.elts]
        for item in items:
            if value_of(item) is None:
                raise ExpressionError(item.column, "not a literal", "literals; `is None` for None")
        kind, (node, *items) = unified([node, *items], "in")
        among = pa.array([value_of(item) for item in items], STORED[kind])
        negate = isinstance(operator, ast.NotIn)
        return apply("bool", lambda values: is_in(values, among, negate), [node], node.column)

    # ---- Functions ----

    def _call(self, tree: ast.Call) -> Node:
        column = tree.col_offset + 1
        if not isinstance(tree.func, ast.Name):
            raise ExpressionError(column, "a call of no function", "a function by its name")
        name = tree.func.id
        if tree.keywords or any(isinstance(arg, ast.Starred) for arg in tree.args):
            raise ExpressionError(column, f"{name}: an argument by name or star", "plain arguments")
        if name == "field":
            return self._field_call(tree.args, column)
        if name not in NAMES:
            raise ExpressionError(column, f"no function {name!r}", meant(name, NAMES, "functions"))
        nodes = [self.node(arg) for arg in tree.args]
        if name in OF_ONE_TYPE:
            return of_one_type(name, OF_ONE_TYPE[name], nodes, column)
        for signature in FUNCTIONS[name]:
            if fits(signature, nodes):
                return call(name, signature, nodes, column)
        given = ", ".join(node.kind for node in nodes)
        allowed = " or ".join(f"{name}{signature}" for signature in FUNCTIONS[name])
        raise ExpressionError(column, f"{name}({given})", allowed)

    def _field_call(self, args: list[ast.expr], column: int) -> Node:
        """`field('class')`: for names that are words of the language."""
        if len(args) == 1 and isinstance(args[0], ast.Constant) and isinstance(args[0].value, str):
            return self._field(args[0].value, column)
        raise ExpressionError(column, "field(...) of no name", "field('name')")


def _test(sign: ast.cmpop, left: Node, right: Node) -> Callable[[Values, Values], Values]:
    """How two parts are compared: an int64 beside a float64 as one."""
    for node in (left, right):
        if node.kind == "null":
            raise ExpressionError(node.column, "a comparison with None", "is None, is not None")
    kind, _ = unified([left, right], "a comparison")
    if kind == "bool" and not isinstance(sign, (ast.Eq, ast.NotEq)):
        raise ExpressionError(right.column, "an order of bools", "==, != and not")
    compare = COMPARISONS[type(sign)]
    if left.kind == right.kind:
        return compare
    if left.kind == kind:
        return lambda a, b: compare(a, as_float(b))
    return lambda a, b: compare(as_float(a), b)
