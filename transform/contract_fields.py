"""`[[field]]` tables of a contract: columns, and where their values come from."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast, get_args

from transform.contract import EXPRESSION_NAMES, READING, Alias, Field, Privacy, dotted
from transform.contract_paths import clash, read_path
from transform.expression import Expression, ExpressionError, parse
from transform.field_types import INT64_MAX, INT64_MIN, FieldType, Value
from transform.timestamps import TimestampError, TimestampFormat, parse_timestamp
from transform.toml_reader import Reader, a_, one_of
from transform.units import Conversion, UnitError, conversion

FIELDS_MAX = 500  # 500 names of 64 characters and a 256 KiB body still fit a 400 KB item
ALIASES_MAX = 16  # of a field
PLACES_MAX = 1_000  # of fields and aliases: each costs every message, 60 us with so many
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
HOT_KEYS = ("pk", "sk", "expires_at")  # the hot table's own attributes
SOURCES = ("path", "attribute", "expr", "lookup")
BELONGS = {  # keys that only some sources of a value have
    "aliases": ("path",),
    "from_unit": ("path",),
    "of": ("path",),
    "column": ("lookup",),
}
MADE = ("expr", "lookup")


def read_fields(root: Reader) -> list[Field]:
    """A contract's fields, their expressions read. Raises the first `Mistake` in them."""
    tables = root.take("field", list, "at least one [[field]] table", default=[])
    if not tables or not all(isinstance(table, dict) for table in tables):
        wrong = "not a list of tables" if tables else "there is none"
        raise root.error("field", wrong, "describe each field in a [[field]] table")
    if len(tables) > FIELDS_MAX:
        raise root.error("field", f"{len(tables)} fields", f"at most {FIELDS_MAX}")
    fields: list[Field] = []
    readers: list[Reader] = []
    for number, table in enumerate(tables):
        reader = Reader(("field", number), f"field {number + 1}", table)
        field = _field(reader)
        reader.finish()
        if any(field.name == other.name for other in fields):
            raise reader.error("name", f"{field.name!r} is already a field", "names differ")
        _lie_apart(reader, field, fields)
        fields.append(field)
        readers.append(reader)
        places = sum(len(found.places) for found in fields)
        if places > PLACES_MAX:
            raise reader.error("aliases", f"{places} places in all", f"at most {PLACES_MAX}")
    return _with_expressions(fields, readers)


def _field(reader: Reader) -> Field:
    name = reader.text(
        "name", NAME, "a lower-case letter, then lower-case letters, digits and _, at most 64"
    )
    reader.key = f"field {name!r}"
    if name in HOT_KEYS:
        raise reader.error("name", f"{name!r} is the hot table's own", "another name")
    kind = cast("FieldType", reader.choice("type", get_args(FieldType)))
    reader.may_have("format", *SOURCES, *BELONGS)
    source = _source(reader)
    form = _format(reader, kind, source)
    value = _value_reader(kind, form or "iso8601")
    required = reader.take("required", bool, "true or false", default=False)
    default = reader.value("default", value)
    if required and default is not None:
        raise reader.error("default", "a required field has none", "drop `required` or `default`")
    minimum, maximum, allowed = _limits(reader, kind, value)
    if default is not None:
        _default_fits(reader, default, minimum, maximum, allowed)
    unit = reader.text("unit", default="")
    own = _conversion(reader, "from_unit", kind, unit, reader.text("from_unit", default=""))
    return Field(
        name=name,
        path=read_path(reader, "path", name) if source == "path" else (),
        type=kind,
        format=form,
        required=required,
        default=default,
        minimum=minimum,
        maximum=maximum,
        allowed=allowed,
        description=reader.text("description", default=""),
        unit=unit,
        aliases=_aliases(reader, kind, unit),
        conversion=own,
        attribute=reader.text("attribute", default=""),
        lookup=reader.text("lookup", default=""),
        column=reader.text("column", default=name) if source == "lookup" else "",
        of_reading=_of_reading(reader),
        privacy=_privacy(reader, kind),
    )


def _source(reader: Reader) -> str:
    """Where the value comes from; the message, unless another place is named."""
    named = [key for key in SOURCES if key in reader.table_]
    if len(named) > 1:
        raise reader.error(named[1], f"beside `{named[0]}`", "a value comes from one place")
    source = named[0] if named else "path"
    for key, sources in BELONGS.items():
        if key in reader.table_ and source not in sources:
            raise reader.error(key, f"beside `{source}`", f"`{key}` with {one_of(sources)}")
    if source in MADE and reader.take("expr", str, "an expression", default="x") == "":
        raise reader.error("expr", "it is empty", "an expression, like `temp * 1.8 + 32`")
    for key in ("attribute", "lookup"):
        if reader.text(key, default="-") == "":
            raise reader.error(key, "it is empty", "a name")
    return source


def _format(reader: Reader, kind: FieldType, source: str) -> TimestampFormat | None:
    if kind == "timestamp" and source not in MADE:
        return cast("TimestampFormat", reader.choice("format", get_args(TimestampFormat)))
    if "format" in reader.table_:
        wrong = f"only a timestamp has one, this is {a_(kind)}"
        if kind == "timestamp":
            wrong = "what is made is a moment already"
        raise reader.error("format", wrong, "remove it")
    return None


def _limits(
    reader: Reader, kind: FieldType, value: Callable[[Any], Value]
) -> tuple[int | float | None, int | float | None, tuple[Value, ...] | None]:
    minimum, maximum = (_bound(reader, key, kind, value) for key in ("min", "max"))
    if minimum is not None and maximum is not None and minimum > maximum:
        raise reader.error("min", f"{minimum} is above max {maximum}", "min at most max")
    allowed = _allowed(reader, kind, value)
    for item in allowed or ():
        if _outside(item, minimum, maximum):
            raise reader.error("allowed", f"{item!r} is out of range", "values in the range")
    return minimum, maximum, allowed


def _of_reading(reader: Reader) -> bool:
    return bool(reader.choice("of", ("reading", "message"), default="message") == "reading")


def _privacy(reader: Reader, kind: FieldType) -> Privacy:
    privacy = reader.choice("privacy", ("redact", "hash"), default="")
    if privacy == "hash" and kind != "string":
        raise reader.error("privacy", f"{a_(kind)} is not hashed", "`hash` on a string field")
    return cast("Privacy", privacy)


def _aliases(reader: Reader, kind: FieldType, unit: str) -> tuple[Alias, ...]:
    given = reader.take("aliases", list, "a list of paths", default=[])
    if len(given) > ALIASES_MAX:
        raise reader.error("aliases", f"{len(given)} aliases", f"at most {ALIASES_MAX}")
    found: list[Alias] = []
    for number, item in enumerate(given):
        table = item if isinstance(item, dict) else {"path": item}
        key = f"{reader.key}: aliases {number + 1}"
        inner = Reader((*reader.at, "aliases", number), key, table)
        path = read_path(inner, "path")
        from_unit = inner.text("unit", default="")
        found.append(Alias(path, _conversion(inner, "unit", kind, unit, from_unit)))
        inner.finish()
    return tuple(found)


def _conversion(
    reader: Reader, key: str, kind: FieldType, unit: str, from_unit: str
) -> Conversion | None:
    if not from_unit:
        return None
    if kind != "float64":
        raise reader.error(key, f"{a_(kind)} is not converted", "units on float64 fields")
    if not unit:
        raise reader.error(key, "converted to what?", "`unit` says what the column is in")
    try:
        return conversion(from_unit, unit)
    except UnitError as error:
        raise reader.error(
            key, str(error), "units of one kind, as UCUM or SenML spell them"
        ) from None


def _lie_apart(reader: Reader, field: Field, others: Sequence[Field]) -> None:
    """A value is a field, or an object that holds fields: no path leads through another's."""
    taken = [(field, path) for path in field.places]
    for number, (_, path) in enumerate(taken):
        for other, theirs in (
            *((o, p) for o in others if o.of_reading == field.of_reading for p in o.places),
            *taken[:number],
        ):
            if clash(path, theirs):
                raise reader.error(
                    "path" if path == field.path else "aliases",
                    f"{dotted(path)!r} and {other.name!r} ({dotted(theirs)!r}) lie on one path",
                    "a value is either a field or an object or list that holds fields",
                )


def _with_expressions(fields: list[Field], readers: list[Reader]) -> list[Field]:
    """The same fields with their expressions, each of which may name what is made before it."""
    types: dict[str, FieldType] = {READING: EXPRESSION_NAMES[READING]}
    types |= {
        f.name: f.type for f, r in zip(fields, readers, strict=True) if "expr" not in r.table_
    }
    found: list[Field] = []
    for field, reader in zip(fields, readers, strict=True):
        if "expr" in reader.table_:
            later = {f.name for f in fields} - types.keys()
            expression = read_expression(reader, "expr", types, later - {field.name})
            if expression.type != field.type and (expression.type, field.type) != (
                "int64",
                "float64",
            ):
                wrong = f"it is {a_(expression.type)}, the field is {a_(field.type)}"
                raise reader.error("expr", wrong, f'`type = "{expression.type}"`, or a cast')
            field = replace(field, expression=expression)  # noqa: PLW2901  the same, complete
            types[field.name] = field.type
        found.append(field)
    return found


def read_expression(
    reader: Reader,
    key: str,
    types: Mapping[str, FieldType],
    later: set[str] = frozenset(),  # type: ignore[assignment]
) -> Expression:
    """The expression under a key. Raises a `Mistake`; `later` are names that it may not use yet."""
    text = reader.text(key, allowed="an expression, like `temp * 1.8 + 32`")
    try:
        return parse(text, types)
    except ExpressionError as error:
        early = next((name for name in sorted(later) if re.search(rf"\b{name}\b", text)), "")
        hint = f"; {early!r} is made further down: move it up" if early else ""
        raise reader.error(key, f"{error}{hint}", "fields, operators, functions") from None


def _bound(
    reader: Reader, key: str, kind: FieldType, value: Callable[[Any], Value]
) -> int | float | None:
    if key in reader.table_ and kind not in ("int64", "float64"):
        raise reader.error(key, f"{a_(kind)} has no range", "int64 and float64 fields have one")
    return cast("int | float | None", reader.value(key, value))


def _allowed(
    reader: Reader, kind: FieldType, value: Callable[[Any], Value]
) -> tuple[Value, ...] | None:
    given = reader.take("allowed", list, "a list of values", default=None)
    if given is None:
        return None
    if kind not in ("string", "int64"):
        raise reader.error("allowed", f"{a_(kind)} has no list of values", "string and int64 have")
    if not given:
        raise reader.error("allowed", "the list is empty", "at least one value")
    try:
        return tuple(dict.fromkeys(value(item) for item in given))
    except ValueError as error:
        raise reader.error("allowed", str(error), f"{kind} values") from None


def _default_fits(
    reader: Reader,
    default: Value,
    minimum: float | None,
    maximum: float | None,
    allowed: tuple[Value, ...] | None,
) -> None:
    if allowed is not None and default not in allowed:
        raise reader.error("default", f"{default!r} is not allowed", one_of(allowed))
    if _outside(default, minimum, maximum):
        raise reader.error("default", f"{default!r} is out of range", "a default in the range")


def _outside(value: Value, minimum: float | None, maximum: float | None) -> bool:
    number = value if isinstance(value, (int, float)) else 0
    return (minimum is not None and number < minimum) or (maximum is not None and number > maximum)


def _value_reader(kind: FieldType, form: TimestampFormat | None) -> Callable[[Any], Value]:
    """How a value of this type is written in a contract; the reader raises `ValueError`."""

    def read(value: Any) -> Value:
        if kind == "string" and isinstance(value, str):
            return value
        if kind == "bool" and isinstance(value, bool):
            return value
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if kind == "int64" and number and isinstance(value, int):
            if not INT64_MIN <= value <= INT64_MAX:
                raise ValueError(f"{value} does not fit an int64")
            return value
        if kind == "float64" and number:
            if not math.isfinite(value):
                raise ValueError(f"{value} is not finite")
            return float(value)
        if kind == "timestamp" and form is not None and isinstance(value, (str, int)):
            try:
                return parse_timestamp(str(value), form)
            except TimestampError as error:
                raise ValueError(str(error)) from None
        raise ValueError(f"{value!r} is not {a_(kind)}")

    return read
