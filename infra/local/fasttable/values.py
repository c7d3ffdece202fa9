"""Attribute values: their shapes, and what DynamoDB makes of wrong ones.

To look at each value costs more than all else. So the types are left to `msgspec`, the rest is seen
in the bytes of a whole request, and only where they show something unusual is each value looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, cast

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from infra.local.fasttable.refusals import Refused, invalid, invalid_values, unreadable

ITEM_BYTES_MAX = 409_600
DEPTH_MAX = 32
DIGITS_MAX = 38
GREATEST, LEAST = 125, -130  # powers of ten of a number's first digit


class Value(Struct, forbid_unknown_fields=True, gc=False):
    """One attribute value: exactly one of these."""

    S: str | UnsetType = UNSET
    N: str | UnsetType = UNSET
    B: bytes | UnsetType = UNSET
    BOOL: bool | UnsetType = UNSET
    NULL: bool | UnsetType = UNSET
    M: dict[str, Value] | UnsetType = UNSET
    L: list[Value] | UnsetType = UNSET
    SS: list[str] | UnsetType = UNSET
    NS: list[str] | UnsetType = UNSET
    BS: list[bytes] | UnsetType = UNSET


class Plain(Struct, forbid_unknown_fields=True, gc=False):
    """What nearly all values are."""

    S: str | UnsetType = UNSET
    N: str | UnsetType = UNSET
    BOOL: bool | UnsetType = UNSET


Values = dict[str, Value]

_values = msgspec.json.Decoder(Values)
_plain_values = msgspec.json.Decoder(dict[str, Plain])
_usual_number = re.compile(r"-?[0-9]{1,19}(?:\.[0-9]{1,19})?").fullmatch
_number = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,9})?").fullmatch
_empty = re.compile(rb"\{\s*\}").search
_odd_number = re.compile(rb'"N"\s*:\s*(?!\s|"-?[0-9]{1,19}(?:\.[0-9]{1,19})?")').search
_second_kind = re.compile(rb',\s*"(?:S|N|B|BOOL|NULL|M|L|SS|NS|BS)"\s*:').search


def is_plain(body: bytes) -> bool:
    """Whether all values in this JSON that are `Plain` are also right, by what its bytes show.

    No value is empty; none has two kinds, for each kind is the first of its braces; numbers are of
    the usual sort. Quotes within strings are escaped, so that none can look like a kind; but names
    may be spelled in escapes, and an attribute may be called `S`: such a body is not plain.
    """
    escapes = b"\\" in body and b"\\u" in body  # to look for one byte is ten times faster
    odd = escapes or b"\n" in body or _second_kind(body) or _empty(body) or _odd_number(body)
    return not odd


def read_values(raw: Raw | bytes) -> Values:
    """An item's or a key's attributes, each looked at. Raises `Refused`."""
    values = _decoded(raw)
    _check_all(values.values(), DEPTH_MAX)
    return values


def read_plain(raw: bytes) -> Mapping[str, Plain | Value]:
    """The same of a part of a body that `is_plain`."""
    try:
        return _plain_values.decode(raw)
    except msgspec.ValidationError:  # another kind
        return read_values(raw)


def _decoded(raw: Raw | bytes) -> Values:
    try:
        return _values.decode(raw)
    except msgspec.ValidationError as error:
        raise _misshapen(error) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise unreadable(str(error)) from None


def check(value: Value, depth: int = DEPTH_MAX) -> None:
    """Raises `Refused` for what DynamoDB does not take."""
    kinds = _kinds(value)
    if len(kinds) != 1:
        how = "has more than one datatypes set" if kinds else "is empty"
        raise invalid(
            f"Supplied AttributeValue {how}, must contain exactly one of the supported datatypes"
        )
    match kinds[0]:
        case "N":
            check_number(str(value.N))
        case "NULL" if value.NULL is not True:
            raise invalid_values("Null attribute value types must have the value of true")
        case "M" | "L" if depth == 0:
            raise invalid("Nesting Levels have exceeded supported limits")
        case "M" if isinstance(value.M, dict):
            _check_all(value.M.values(), depth - 1)
        case "L" if isinstance(value.L, list):
            _check_all(value.L, depth - 1)
        case "SS" | "NS" | "BS" as kind:
            _check_set(kind, getattr(value, kind))


def kind_of(value: Plain | Value) -> str:
    """The kind of a value that was looked at."""
    return _kinds(value)[0]


def _kinds(value: Plain | Value) -> list[str]:
    return [kind for kind in value.__struct_fields__ if getattr(value, kind) is not UNSET]


def check_number(text: str) -> None:
    """Raises `Refused` for what is no number of DynamoDB's."""
    if _usual_number(text):
        return
    try:
        number = Decimal(text if _number(text) else "")
    except InvalidOperation:
        why = f"The parameter cannot be converted to a numeric value: {text}"
        raise invalid(why) from None
    if not number:
        return
    digits = "".join(map(str, number.as_tuple().digits)).strip("0")
    if len(digits) > DIGITS_MAX:
        raise invalid("Attempting to store more than 38 significant digits in a Number")
    size = "larger" if number.adjusted() > GREATEST else "smaller"
    if not LEAST <= number.adjusted() <= GREATEST:
        how = "overflow" if size == "larger" else "underflow"
        raise invalid(
            f"Number {how}. Attempting to store a number with magnitude {size} than supported range"
        )


def check_size(values: Values) -> None:
    """Raises `Refused` for an item over 400 KiB, which is never more than its JSON."""
    if _size_of_map(values) > ITEM_BYTES_MAX:
        raise invalid("Item size has exceeded the maximum allowed size")


def _check_all(values: Iterable[Value], depth: int) -> None:
    for value in values:
        check(value, depth)


def _check_set(kind: str, members: list[str] | list[bytes]) -> None:
    names = {"SS": "string", "NS": "number", "BS": "binary"}
    if not members:
        raise invalid_values(f"An {names[kind]} set  may not be empty")
    if kind == "NS":
        for member in members:
            check_number(str(member))
        members = [str(Decimal(str(member)).normalize()) for member in members]
    if len(set(members)) < len(members):
        raise invalid_values(
            f"Input collection [{', '.join(map(str, members))}] contains duplicates."
        )


def _size_of_map(values: Mapping[str, Value]) -> int:
    return sum(len(name.encode()) + _size(value) for name, value in values.items())


def _size(value: Value) -> int:
    """As DynamoDB's documentation counts; two digits of a number are a byte, and one more."""
    match kind_of(value):
        case "M":
            return 3 + len(cast("Values", value.M)) + _size_of_map(cast("Values", value.M))
        case "L":
            return 3 + sum(1 + _size(each) for each in cast("list[Value]", value.L))
        case "SS" | "NS" | "BS" as kind:
            return sum(_size_of_one(kind[0], each) for each in getattr(value, kind))
        case kind:
            return _size_of_one(kind, getattr(value, kind))


def _size_of_one(kind: str, inner: Any) -> int:
    match kind:
        case "S":
            return len(inner.encode())
        case "N":
            return _size_of_number(inner)
        case "B":
            return len(inner)
    return 1


def _size_of_number(text: str) -> int:
    digits = "".join(map(str, Decimal(text).as_tuple().digits)).strip("0")
    return (len(digits) + 1) // 2 + 1


def _misshapen(error: msgspec.ValidationError) -> Refused:
    """DynamoDB names what it found and what it wanted, in Java's words."""
    text = str(error)
    if "unknown field" in text:
        return invalid(
            "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
        )
    found = re.search(r"Expected `([a-z]+).*`, got `([a-z]+)`", text)
    if found is None:
        return unreadable(text)
    wanted = {"str": "String", "bool": "Boolean", "bytes": "Blob"}.get(found[1], found[1])
    tokens = {"int": "NUMBER_VALUE", "float": "DECIMAL_VALUE", "bool": "TRUE_VALUE"}
    return unreadable(f"{tokens.get(found[2], found[2])} cannot be converted to {wanted}")
