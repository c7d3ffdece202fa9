"""All of a contract but fields and identity: what messages are, and what becomes of rows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, cast

from transform.contract import (
    ARRIVAL,
    EXPRESSION_NAMES,
    Case,
    Choose,
    Explode,
    Field,
    Filter,
    HotLayout,
    Lookup,
    Unknown,
    Where,
    dotted,
)
from transform.contract_fields import NAME, read_expression
from transform.contract_paths import clash, read_path
from transform.envelope import Envelope
from transform.expression import Expression
from transform.field_types import FieldType
from transform.lookups import LookupError_, read_lookup
from transform.toml_reader import Reader, a_, near, one_of
from transform.wrapped import Wrapper

RULE_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
RULES_MAX = 100
OWN_RULES = ("choose", "explode", "sample")  # what drops by itself, under these names

Files = Callable[[Lookup], bytes]
"""The bytes of a lookup's file, by its name beside the contract or by its digest.

Raises `OSError`.
"""


def read_envelope(root: Reader) -> Envelope:
    """How messages are packed, where that is not plain to see."""
    reader = root.table("envelope")
    body = reader.choice("body", ("json", "ndjson", "senml"), default="json")
    names = ("sns", "eventbridge", "cloudevents")
    unwrap = reader.take("unwrap", list, f"a list of {one_of(names)}", default=[])
    for name in unwrap:
        if name not in names:
            raise reader.error("unwrap", f"{name!r}{near(str(name), names)}", one_of(names))
    reader.finish()
    return Envelope(cast("Any", body), tuple(cast("list[Wrapper]", unwrap)))


def read_unknown(root: Reader) -> Unknown:
    """What becomes of fields that the contract does not name."""
    return cast("Unknown", root.choice("unknown", ("rescue", "drop", "reject"), default="rescue"))


def read_where(reader: Reader) -> Where:
    """A place that says something of a message: its `path` or its `attribute`."""
    reader.may_have("path", "attribute")
    if ("path" in reader.table_) == ("attribute" in reader.table_):
        raise reader.error("path", "one of `path` and `attribute`", "where the message says it")
    if "attribute" in reader.table_:
        return Where(attribute=reader.text("attribute"))
    return Where(path=read_path(reader, "path", places=False))


def read_schema(root: Reader) -> Where | None:
    """Where a message names the version of the contract that it was written by."""
    if "schema" not in root.table_:
        root.may_have("schema")
        return None
    reader = root.table("schema")
    where = read_where(reader)
    reader.finish()
    return where


def read_choose(root: Reader, fields: Sequence[Field], identity: Sequence[str]) -> Choose | None:
    """Which fields a message has, by its type."""
    if "choose" not in root.table_:
        root.may_have("choose")
        return None
    reader = root.table("choose")
    where = read_where(reader)
    otherwise = reader.choice("otherwise", ("reject", "drop"), default="reject")
    cases: list[Case] = []
    names = [f.name for f in fields]
    for inner in reader.tables("case"):
        values = _values(inner, {value for case in cases for value in case.values})
        own = inner.take("fields", list, "a list of field names", default=names)
        for name in own:
            if name not in names:
                wrong = f"no field is called {name!r}{near(str(name), names)}"
                raise inner.error("fields", wrong, one_of(names))
        inner.finish()
        cases.append(Case(values, tuple(name for name in names if name in own or name in identity)))
    if not cases:
        raise reader.error("case", "there is none", "a [[choose.case]] table for each type")
    reader.finish()
    return Choose(where, tuple(cases), cast("Any", otherwise))


def _values(reader: Reader, taken: set[str]) -> tuple[str, ...]:
    given = reader.take("value", (str, int, bool, list), "a value, or a list of values")
    values = given if isinstance(given, list) else [given]
    if not values or not all(isinstance(value, (str, int, bool)) for value in values):
        raise reader.error("value", f"{given!r}", "texts or whole numbers, at least one")
    told = tuple(
        {True: "true", False: "false"}[v] if isinstance(v, bool) else str(v) for v in values
    )
    for value in told:
        if value in taken:
            raise reader.error("value", f"{value!r} has a case already", "values differ")
    return told


def read_explode(root: Reader, fields: Sequence[Field]) -> Explode | None:
    """The list whose elements become rows."""
    inside = [f for f in fields if f.of_reading]
    if "explode" not in root.table_:
        root.may_have("explode")
        if inside:
            number = list(fields).index(inside[0])
            reader = Reader(("field", number), f"field {inside[0].name!r}", {})
            raise reader.error("of", "there is no list of readings", "an [explode] table")
        return None
    reader = root.table("explode")
    path = read_path(reader, "path")
    empty = reader.choice("empty", ("reject", "drop"), default="reject")
    if not inside:
        raise reader.error("path", "no field is of a reading", '`of = "reading"` in its fields')
    for field in fields:
        for theirs in () if field.of_reading else field.places:
            if clash(path, theirs):
                wrong = f"{dotted(path)!r} and {field.name!r} ({dotted(theirs)!r}) lie on one path"
                raise reader.error("path", wrong, "the list's own path")
    reader.finish()
    return Explode(path, cast("Any", empty))


def read_filters(root: Reader, types: Mapping[str, FieldType]) -> tuple[Filter, ...]:
    """The rules that drop rows, in their order."""
    filters: list[Filter] = []
    for reader in root.tables("filter"):
        name = reader.text("name", RULE_NAME, "lower-case letters, digits, _ and -, at most 64")
        reader.key = f"filter {name!r}"
        if name in OWN_RULES or any(name == other.name for other in filters):
            raise reader.error("name", f"{name!r} is taken", "names differ")
        reader.may_have("keep", "drop")
        if ("keep" in reader.table_) == ("drop" in reader.table_):
            raise reader.error("keep", "one of `keep` and `drop`", "a condition")
        key = "keep" if "keep" in reader.table_ else "drop"
        filters.append(
            Filter(name, read_condition(reader, key, {**types, **EXPRESSION_NAMES}), key == "drop")
        )
        reader.finish()
    if len(filters) > RULES_MAX:
        raise root.error("filter", f"{len(filters)} filters", f"at most {RULES_MAX}")
    return tuple(filters)


def read_condition(reader: Reader, key: str, types: Mapping[str, FieldType]) -> Expression:
    """An expression that is true or false."""
    expression = read_expression(reader, key, types)
    if expression.type != "bool":
        wrong = f"it is {a_(expression.type)}"
        raise reader.error(key, wrong, "a condition, which is true or false")
    return expression


def read_hot(
    hot: Reader, fields: Sequence[Field]
) -> tuple[int | None, Expression | None, tuple[str, ...] | None]:
    """How long items are kept hot, which rows are, and with which fields."""
    days = hot.integer("ttl_days", 1, 36_500, default=0)
    types = {f.name: f.type for f in fields}
    named = {**types, ARRIVAL: EXPRESSION_NAMES[ARRIVAL]}
    when = read_condition(hot, "when", named) if "when" in hot.table_ else None
    hot.may_have("when")
    for field in fields:
        if when is not None and field.name in when.names and field.privacy:
            wrong = f"field {field.name!r} is hidden in what it looks at"
            raise hot.error("when", wrong, "fields without `privacy`")
    kept = hot.take("fields", list, "a list of field names", default=None)
    for name in kept or ():
        if name not in types:
            wrong = f"no field is called {name!r}{near(str(name), types)}"
            raise hot.error("fields", wrong, one_of(types))
    return days * 86_400 if days else None, when, None if kept is None else tuple(kept)


def read_layout(hot: Reader) -> HotLayout:
    """What the hot table has an item of."""
    return cast("HotLayout", hot.choice("layout", ("reading", "latest"), default="reading"))


def read_sample(root: Reader) -> float | None:
    """The part of all records that is kept."""
    if "sample" not in root.table_:
        root.may_have("sample")
        return None
    reader = root.table("sample")
    keep = reader.take("keep", (int, float), "a part, over 0 and under 1")
    if isinstance(keep, bool) or not 0 < keep < 1:
        raise reader.error("keep", f"{keep}", "a part, over 0 and under 1")
    reader.finish()
    return float(keep)


def read_lookups(
    root: Reader, fields: Sequence[Field], files: Files | None, pinned: Mapping[str, str]
) -> tuple[Lookup, ...]:
    """The tables beside the contract, with the columns that its fields want of them.

    `pinned` holds digests by a lookup's name. Without `files` no tables are read, for who makes no
    rows.
    """
    by_name = {f.name: f for f in fields}
    found: list[Lookup] = []
    for reader in root.tables("lookup"):
        name = reader.text("name", NAME, "a lower-case letter, then letters, digits and _")
        reader.key = f"lookup {name!r}"
        if any(name == other.name for other in found):
            raise reader.error("name", f"{name!r} is already a lookup", "names differ")
        file = reader.text(
            "file", allowed="the name of a .csv, .ndjson or .parquet file beside this one"
        )
        if PurePosixPath(file).name != file:
            raise reader.error("file", f"{file!r}", "a file's name, in the contract's own folder")
        on = reader.text("on", allowed="the field to look up by")
        fitting = [f.name for f in fields if f.type in {"string", "int64"} and not f.made]
        if on not in fitting:
            raise reader.error(
                "on", f"{on!r}{near(on, fitting)}", f"a field of the message, {one_of(fitting)}"
            )
        key = reader.text("key", default=on)
        own = reader.text("digest", default="") or str(pinned.get(name, ""))
        reader.finish()
        wanted = [f for f in fields if f.lookup == name]
        lookup = Lookup(name, file, on, key, own)
        found.append(_loaded(reader, lookup, by_name[on], wanted, files))
    names = [lookup.name for lookup in found]
    for number, field in enumerate(fields):
        if field.lookup and field.lookup not in names:
            reader = Reader(("field", number), f"field {field.name!r}", {})
            wrong = f"no lookup is called {field.lookup!r}{near(field.lookup, names)}"
            raise reader.error("lookup", wrong, "a [[lookup]] table of that name")
    return tuple(found)


def _loaded(
    reader: Reader, lookup: Lookup, on: Field, wanted: Sequence[Field], files: Files | None
) -> Lookup:
    if files is None:
        return lookup
    try:
        data = files(lookup)
    except OSError as error:
        told = error.strerror or error
        raise reader.error(
            "file", f"{lookup.file} cannot be read: {told}", "a file beside this one"
        ) from None
    digest = hashlib.sha256(data).hexdigest()
    if lookup.digest not in {"", digest}:
        raise reader.error("digest", f"{lookup.file} is not of this digest", digest)
    try:
        table = read_lookup(data, lookup, on, wanted)
    except LookupError_ as error:
        raise reader.error("file", f"{lookup.file}: {error}", "one row for each key") from None
    return replace(lookup, digest=digest, table=table, data=data)
