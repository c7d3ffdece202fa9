"""The functions of the expression language: what each takes, gives and does.

A `Fixed` argument is the same for every row: a literal, known when the expression is read. An int64
goes wherever a float64 is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from transform import expression_kernels as kernels
from transform.expression_kernels import Values, settled
from transform.field_types import FieldType, any_utc_text
from transform.timestamps import TimestampError, parse_timestamp

DECIMALS_MAX = 15  # of a double's 15 to 17 significant digits


@dataclass(frozen=True)
class Fixed:
    """An argument that is a literal of this type."""

    type: FieldType

    def __str__(self) -> str:
        return f"literal {self.type}"


@dataclass(frozen=True)
class Signature:
    """One way to call a function. `check` says what is wrong with the literals, or nothing."""

    takes: tuple[FieldType | Fixed, ...]
    gives: FieldType
    run: Callable[..., Values]
    check: Callable[..., str] = lambda *_: ""

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.takes))})"


def _round(values: Values, digits: int = 0) -> Values:
    return kernels.round_to(values, digits)


def _round_whole(values: Values, _digits: int = 0) -> Values:
    return values


def _decimals(digits: int) -> str:
    return "" if 0 <= digits <= DECIMALS_MAX else f"{digits} decimals; 0 to {DECIMALS_MAX}"


def _pattern(pattern: str) -> str:
    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid as error:
        return f"not an RE2 pattern: {str(error).removeprefix('Invalid regular expression: ')}"
    return ""


def _grouped(pattern: str) -> str:
    wrong = _pattern(pattern)
    if wrong:
        return wrong
    try:
        kernels.extract(pa.array([""]), pattern)
    except pa.ArrowInvalid:
        return "no part of the pattern is in parentheses"
    return ""


def _replaceable(old: str, _new: str) -> str:
    return "" if old else "there is no text to replace"


def _substring(texts: Values, start: int, length: int | None = None) -> Values:
    stop = None if length is None else start + length
    if start < 0 and stop is not None and stop >= 0:
        stop = None  # counted from the end, and past it
    return pc.utf8_slice_codeunits(texts, start, stop)


def _lengths(_start: int, length: int = 0) -> str:
    return "" if length >= 0 else f"a length of {length}; at least 0"


def _length(texts: Values) -> Values:
    return pc.cast(pc.utf8_length(texts), pa.int64())


def _moment(text: str) -> Values:
    return pa.array([parse_timestamp(text, "iso8601")])


def _iso(text: str) -> str:
    try:
        parse_timestamp(text, "iso8601")
    except TimestampError as error:
        return str(error)
    return ""


def _seconds_between(earlier: Values, later: Values) -> Values:
    return kernels.in_seconds(pc.subtract(later, earlier))


def _part(kernel: Callable[[Values], Values]) -> tuple[Signature, ...]:
    def run(micros: Values) -> Values:
        return kernel(kernels.naive(micros))

    return (Signature(("timestamp",), "int64", run),)


def _number(kernel: Callable[..., Values]) -> tuple[Signature, ...]:
    return (Signature(("float64",), "float64", kernel),)


def _text(kernel: Callable[..., Values]) -> tuple[Signature, ...]:
    return (Signature(("string",), "string", kernel),)


def _search(
    kernel: Callable[..., Values], check: Callable[..., str] = lambda _: ""
) -> tuple[Signature, ...]:
    return (Signature(("string", Fixed("string")), "bool", kernel, check),)


def _same(values: Values) -> Values:
    return values


def _bool_to_int(values: Values) -> Values:
    return pc.cast(values, pa.int64())


_TEXT, _WHOLE = Fixed("string"), Fixed("int64")

FUNCTIONS: Mapping[str, tuple[Signature, ...]] = {
    "abs": (
        Signature(("int64",), "int64", kernels.int_abs),
        Signature(("float64",), "float64", pc.abs),
    ),
    "round": (
        Signature(("int64",), "int64", _round_whole),
        Signature(("int64", _WHOLE), "int64", _round_whole, _decimals),
        Signature(("float64",), "float64", _round),
        Signature(("float64", _WHOLE), "float64", _round, _decimals),
    ),
    "floor": _number(pc.floor),
    "ceil": _number(pc.ceil),
    "sqrt": _number(settled(pc.sqrt)),
    "log": _number(settled(pc.ln)),
    "log10": _number(settled(pc.log10)),
    "exp": _number(settled(pc.exp)),
    "lower": _text(pc.utf8_lower),
    "upper": _text(pc.utf8_upper),
    "trim": _text(pc.utf8_trim_whitespace),
    "length": (Signature(("string",), "int64", _length),),
    "starts_with": _search(pc.starts_with),
    "ends_with": _search(pc.ends_with),
    "contains": _search(pc.match_substring),
    "matches": _search(pc.match_substring_regex, _pattern),
    "extract": (Signature(("string", _TEXT), "string", kernels.extract, _grouped),),
    "substring": (
        Signature(("string", _WHOLE), "string", _substring),
        Signature(("string", _WHOLE, _WHOLE), "string", _substring, _lengths),
    ),
    "replace": (Signature(("string", _TEXT, _TEXT), "string", kernels.replace, _replaceable),),
    "int": (
        Signature(("int64",), "int64", _same),
        Signature(("float64",), "int64", kernels.float_to_int),
        Signature(("string",), "int64", kernels.text_to_int),
        Signature(("bool",), "int64", _bool_to_int),
    ),
    "float": (
        Signature(("float64",), "float64", _same),
        Signature(("string",), "float64", kernels.text_to_float),
    ),
    "string": (
        Signature(("string",), "string", _same),
        Signature(("int64",), "string", kernels.number_to_text),
        Signature(("float64",), "string", kernels.float_to_text),
        Signature(("bool",), "string", kernels.number_to_text),
        Signature(("timestamp",), "string", any_utc_text),
    ),
    "timestamp": (
        Signature((_TEXT,), "timestamp", _moment, _iso),
        Signature(("float64",), "timestamp", kernels.seconds_to_moment),
    ),
    "epoch": (Signature(("timestamp",), "float64", kernels.in_seconds),),
    "seconds_between": (Signature(("timestamp", "timestamp"), "float64", _seconds_between),),
    "year": _part(pc.year),
    "month": _part(pc.month),
    "day": _part(pc.day),
    "hour": _part(pc.hour),
    "minute": _part(pc.minute),
    "second": _part(pc.second),
    "weekday": _part(pc.day_of_week),  # Monday is 0
}
"""By name, the ways to call it; the first that fits is taken."""


def _least(*values: Values) -> Values:
    return pc.min_element_wise(*values, skip_nulls=False)


def _greatest(*values: Values) -> Values:
    return pc.max_element_wise(*values, skip_nulls=False)


@dataclass(frozen=True)
class OfOneType:
    """A function of any number of arguments of one type, which is also its own."""

    run: Callable[..., Values]
    types: tuple[FieldType, ...]
    least: int = 2


ORDERED: tuple[FieldType, ...] = ("int64", "float64", "string", "timestamp")

OF_ONE_TYPE: Mapping[str, OfOneType] = {
    "min": OfOneType(_least, ORDERED),
    "max": OfOneType(_greatest, ORDERED),
    "coalesce": OfOneType(pc.coalesce, (*ORDERED, "bool")),
    "concat": OfOneType(kernels.concat, ("string",)),
}

NAMES: tuple[str, ...] = tuple(sorted({*FUNCTIONS, *OF_ONE_TYPE, "field"}))

Operator = tuple[Callable[..., Any] | None, Callable[..., Any]]

ARITHMETIC: Mapping[str, Operator] = {
    "+": (kernels.int_add, kernels.float_add),
    "-": (kernels.int_subtract, kernels.float_subtract),
    "*": (kernels.int_multiply, kernels.float_multiply),
    "/": (None, kernels.float_divide),
    "//": (kernels.int_floor_divide, kernels.float_floor_divide),
    "%": (kernels.int_modulo, kernels.float_modulo),
    "**": (None, kernels.float_power),
}
"""By operator: of two int64, if it has one of its own, and of two float64."""
