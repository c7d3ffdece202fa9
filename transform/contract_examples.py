"""`[[example]]` tables: messages a contract is about, and what must become of each.

They stand in the contract file, so that rules and what they promise change together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, get_args

from transform.contract import Example, Field
from transform.records import ROW_FIELDS, Reason
from transform.timestamps import TimestampError, parse_timestamp
from transform.toml_reader import Reader, one_of

EXPECTATIONS = ("expect", "rejected", "dropped", "rows")
ROW_COLUMNS = ("_rescued", *(field.name for field in ROW_FIELDS))


def read_examples(root: Reader, fields: Iterable[Field]) -> tuple[Example, ...]:
    """The examples of a contract. Raises the first `Mistake` in them."""
    columns = (*(field.name for field in fields), *ROW_COLUMNS)
    return tuple(_example(reader, columns) for reader in root.tables("example"))


def _example(reader: Reader, columns: tuple[str, ...]) -> Example:
    name = reader.text("name")
    reader.key = f"example {name!r}"
    message = _message(reader)
    if not any(key in reader.table_ for key in EXPECTATIONS):
        raise reader.error("expect", "the example expects nothing", one_of(EXPECTATIONS))
    rejected = reader.choice("rejected", get_args(Reason), default="")
    for key in ("expect", "dropped"):
        if rejected and key in reader.table_:
            raise reader.error(key, "a rejected message has none", f"`{key}`, or `rejected`")
    field = reader.text("field", default="")
    if field and not rejected:
        raise reader.error("field", "nothing is rejected here", "a field to blame, with `rejected`")
    example = Example(
        name=name,
        message=message,
        arrival=_arrival(reader),
        attributes=_attributes(reader),
        expect=_expect(reader, columns),
        rejected=rejected or None,
        field=field or None,
        dropped=reader.text("dropped", default="") or None,
        rows=reader.integer("rows", 0, 1_000_000, default=-1),
    )
    reader.finish()
    return example


def _message(reader: Reader) -> bytes:
    given = reader.take("message", (str, dict), "the message as text, or as an inline table")
    if isinstance(given, str):
        return given.encode()
    try:
        return json.dumps(given, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise reader.error("message", f"{error}", "JSON's own values; times as text") from None


def _arrival(reader: Reader) -> int | None:
    given = reader.take("arrival", (str, datetime), "an ISO-8601 time with an offset", default=None)
    if given is None:
        return None
    try:
        return parse_timestamp(given if isinstance(given, str) else given.isoformat(), "iso8601")
    except TimestampError as error:
        raise reader.error("arrival", str(error), "an ISO-8601 time with an offset") from None


def _attributes(reader: Reader) -> Mapping[str, str]:
    given = reader.take("attributes", dict, "a table of texts", default={})
    for value in given.values():
        if not isinstance(value, str):
            raise reader.error("attributes", f"{value!r} is no text", "a table of texts")
    return given  # type: ignore[no-any-return]


def _expect(reader: Reader, columns: tuple[str, ...]) -> Mapping[str, Any] | None:
    given: dict[str, Any] | None = reader.take(
        "expect", dict, "a table of column = value", default=None
    )
    for name, value in (given or {}).items():
        if name not in columns:
            raise reader.error("expect", f"no column {name!r}", one_of(columns))
        if isinstance(value, datetime) and value.tzinfo is None:
            raise reader.error("expect", f"{name!r} has no offset", "a time with Z or +hh:mm")
    return given and {name: _utc(value) for name, value in given.items()}


def _utc(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) else value
