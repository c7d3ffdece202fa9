"""Reading contracts: a TOML file to a `Contract`, or a `ContractError` that says what to mend.

A broken file's error names file, line and column, key, what is wrong and what is allowed.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Any, cast, get_args

from transform.contract import INT64_MAX, INT64_MIN, Contract, Field, FieldType, Value
from transform.contract_examples import read_examples
from transform.timestamps import TimestampError, TimestampFormat, parse_timestamp
from transform.toml_places import Places
from transform.toml_reader import Mistake, Reader, a_, one_of

SHIPPED = FilePath(__file__).parent / "contracts"

BODY_MAX_BYTES = 262_144  # a record's item must stay under DynamoDB's 400 KB with its names added
VERSION_MAX = 9_999  # with the code's version behind it, under the 15 digits JSONata keeps
FIELDS_MAX = 500  # 500 names of 64 characters and a 256 KiB body still fit a 400 KB item
PATH_KEYS_MAX = 32  # the depth of a path; well under the nesting that the decoder reads
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
CONTRACT_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
HOT_KEYS = ("pk", "sk", "expires_at")  # the hot table's own attributes
KEY = re.compile(r'[^"\\\x00-\x1f]+')  # msgspec matches keys as text that JSON need not escape

_TOML_POSITION = re.compile(r" \(at line (\d+), column (\d+)\)$")  # tomllib's messages end so

DEFAULT_BODY_BYTES = 65_536
DEFAULT_FUTURE_SECONDS = 300


class ContractError(ValueError):
    """A contract that cannot be used: `file:line:column: key: what is wrong; what is allowed`."""


def load_contract(name_or_path: str) -> Contract:
    """A shipped contract by its name, or any by its file's path. Raises `ContractError`."""
    path = contract_path(name_or_path)
    return parse_contract(read_file(path), str(path))


def contract_path(name_or_path: str) -> FilePath:
    """Where a contract's file is. Raises `ContractError`.

    A name is looked up first; whatever holds a `/` or ends in `.toml` is a path.
    """
    shipped = sorted(path.stem for path in SHIPPED.glob("*.toml"))
    if name_or_path in shipped:
        return SHIPPED / f"{name_or_path}.toml"
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        return FilePath(name_or_path)
    raise ContractError(
        f"no contract is called {name_or_path!r}; shipped are {', '.join(shipped)}, "
        "or give the path of a .toml file"
    )


def read_file(path: FilePath) -> bytes:
    """A contract file's bytes. Raises `ContractError`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ContractError(f"{path}: cannot be read: {error.strerror}") from error


def parse_contract(data: bytes, file: str) -> Contract:
    """The contract in a TOML document; `file` is only for messages. Raises `ContractError`."""
    document = parse_document(data, file)
    try:
        return contract_of(document, data)
    except Mistake as mistake:
        line, column = Places.of(data.decode()).position(mistake.at)
        raise ContractError(f"{file}:{line}:{column}: {mistake}") from None


def parse_document(data: bytes, file: str) -> dict[str, Any]:
    """A TOML document as plain values. Raises `ContractError`, which says where it is broken."""
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        told = str(error)
        where = _TOML_POSITION.search(told)
        place = ":" + ":".join(where.groups()) if where else ""
        what = told[: where.start()] if where else told
        raise ContractError(f"{file}{place}: not a TOML document: {what}") from error


def contract_of(document: dict[str, Any], data: bytes) -> Contract:
    """The contract in a document that came from `data`. Raises its first `Mistake`."""
    root = Reader((), "", document)
    name = root.text("name", CONTRACT_NAME, "lower-case letters, digits and -, at most 40")
    version = root.integer("version", 1, VERSION_MAX, default=1)
    description = root.text("description", default="")
    fields = _fields(root)
    by_name = {field.name: field for field in fields}
    identity = root.table("identity", required=True)
    device = identity.reference("device", by_name, "string")
    event_time = identity.reference("event_time", by_name, "timestamp")
    record_id = _record_id(identity, by_name, device, event_time)
    identified = {device, event_time, *record_id}
    for number, field in enumerate(fields):
        if field.name in identified and field.default is not None:
            raise Mistake(
                ("field", number, "default"),
                f"identity: {field.name}",
                "an identity field takes no default",
                "remove `default` from this field",
            )
    limits = root.table("limits")
    hot = root.table("hot")
    days = hot.integer("ttl_days", 1, 36_500, default=0)
    contract = Contract(
        name=name,
        version=version,
        description=description,
        fields=tuple(
            Field(**{**vars(f), "required": f.required or f.name in identified}) for f in fields
        ),
        device=device,
        event_time=event_time,
        record_id=record_id,
        max_body_bytes=limits.integer(
            "max_body_bytes", 1, BODY_MAX_BYTES, default=DEFAULT_BODY_BYTES
        ),
        max_future_seconds=limits.integer(
            "max_future_seconds", 0, 31_536_000, default=DEFAULT_FUTURE_SECONDS
        ),
        hot_ttl_seconds=days * 86_400 if days else None,
        source=data,
        examples=read_examples(root, fields),
    )
    for reader in (limits, hot, identity, root):
        reader.finish()
    return contract


def _record_id(
    identity: Reader, by_name: Mapping[str, Field], device: str, event_time: str
) -> tuple[str, ...]:
    names = identity.take("record_id", list, "a list of field names", default=None)
    if names is None:
        return ()
    if not names:
        raise identity.error(
            "record_id", "the list is empty", "field names, or no list for identity by position"
        )
    for name in names:
        if not isinstance(name, str) or name not in by_name:
            raise identity.error("record_id", f"no field is called {name!r}", one_of(by_name))
        if by_name[name].type == "float64":
            raise identity.error(
                "record_id", f"{name!r} is a float64", "use string, int64, bool or timestamp fields"
            )
    return tuple(dict.fromkeys((device, event_time, *names)))


def _fields(root: Reader) -> list[Field]:
    tables = root.take("field", list, "at least one [[field]] table", default=[])
    if not tables or not all(isinstance(table, dict) for table in tables):
        wrong = "not a list of tables" if tables else "there is none"
        raise root.error("field", wrong, "describe each field in a [[field]] table")
    if len(tables) > FIELDS_MAX:
        raise root.error("field", f"{len(tables)} fields", f"at most {FIELDS_MAX}")
    fields: list[Field] = []
    for number, table in enumerate(tables):
        reader = Reader(("field", number), f"field {number + 1}", table)
        field = _field(reader)
        reader.finish()
        if any(field.name == other.name for other in fields):
            raise reader.error("name", f"{field.name!r} is already a field", "names differ")
        for other in fields:
            shorter, longer = sorted((field.path, other.path), key=len)
            if longer[: len(shorter)] == shorter:
                raise reader.error(
                    "path",
                    f"{'.'.join(field.path)!r} and {other.name!r} ({'.'.join(other.path)!r}) "
                    "lie on one path",
                    "a value is either a field or an object that holds fields",
                )
        fields.append(field)
    return fields


def _field(reader: Reader) -> Field:
    name = reader.text(
        "name", NAME, "a lower-case letter, then lower-case letters, digits and _, at most 64"
    )
    reader.key = f"field {name!r}"
    if name in HOT_KEYS:
        raise reader.error("name", f"{name!r} is the hot table's own", "another name")
    kind = cast("FieldType", reader.choice("type", get_args(FieldType)))
    form: TimestampFormat | None = None
    if kind == "timestamp":
        form = cast("TimestampFormat", reader.choice("format", get_args(TimestampFormat)))
    elif "format" in reader.table_:
        raise reader.error("format", f"only a timestamp has one, this is {a_(kind)}", "remove it")
    value = _value_reader(kind, form)
    required = reader.take("required", bool, "true or false", default=False)
    default = reader.value("default", value)
    if required and default is not None:
        raise reader.error("default", "a required field has none", "drop `required` or `default`")
    minimum, maximum = (
        _bound(reader, "min", kind, value),
        _bound(reader, "max", kind, value),
    )
    if minimum is not None and maximum is not None and minimum > maximum:
        raise reader.error("min", f"{minimum} is above max {maximum}", "min at most max")
    allowed = _allowed(reader, kind, value)
    for item in allowed or ():
        if _outside(item, minimum, maximum):
            raise reader.error("allowed", f"{item!r} is out of range", "values in the range")
    if default is not None:
        _default_fits(reader, default, minimum, maximum, allowed)
    return Field(
        name=name,
        path=_path(reader, name),
        type=kind,
        format=form,
        required=required,
        default=default,
        minimum=minimum,
        maximum=maximum,
        allowed=allowed,
        description=reader.text("description", default=""),
        unit=reader.text("unit", default=""),
    )


def _path(reader: Reader, name: str) -> tuple[str, ...]:
    path = reader.take("path", (str, list), "`a.b`, or a list of keys", default=name)
    keys = path.split(".") if isinstance(path, str) else path
    if not keys or not all(isinstance(key, str) and key for key in keys):
        raise reader.error("path", f"{path!r} has an empty key", "`a.b`, or a list of keys")
    if len(keys) > PATH_KEYS_MAX:
        raise reader.error("path", f"{len(keys)} keys", f"at most {PATH_KEYS_MAX}")
    for key in keys:
        if not KEY.fullmatch(key):
            raise reader.error("path", f"the key {key!r}", "no quotes, \\ or control characters")
    return tuple(keys)


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
