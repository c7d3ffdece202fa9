"""The hot store: one DynamoDB item per reading, found by device and time.

    pk  = <device id>#<UTC day>                  one device's day is one partition
    sk  = <event time to the microsecond>#<digest of the element>[#<position>]
    ... = the contract's fields, `_rescued` where there is one, and `expires_at` for the TTL

An item is a function of its record's bytes and contract alone, so any order and any repeat of
writes leaves the same table (law 6). Floats that DynamoDB's numbers cannot hold are kept as text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sinks.deadline import Deadline
from sinks.table import Item, Key, Table, Waiting
from transform.contract import Contract
from transform.field_types import ARROW_TYPES, FieldType, utc_text
from transform.tables import MICROS, hot_mask

NUMBER_MIN, NUMBER_MAX = 1e-130, 9.99e125  # magnitudes a DynamoDB number can have, but for zero
ROWS_MAX = 8_192  # held as Python values of every column, before they are items
LATEST = "~"  # sorts behind every digit, so `time + LATEST` is behind all items of that time


@dataclass(frozen=True)
class HotOutcome:
    """`written` and `refused` count rows, `items` the items of what was written.

    `rows` are the places of refused rows in the table given, `indexes` their source records.
    """

    written: int
    refused: int
    items: int
    indexes: tuple[int, ...]
    rows: tuple[int, ...]


def columns_of(contract: Contract, names: Sequence[str] = ()) -> list[str]:
    """The landing columns that hot items are made of, of an object that has these.

    What versions of the contract beside it read has fields of their own, which it knows nothing of.
    """
    when = contract.hot_when.names if contract.hot_when else ()
    own = [f.name for f in contract.hot_columns]
    more = ("_rescued", "_record_id", "_digest", "_arrival", "_index")
    return list(dict.fromkeys((*own, *_of_others(contract, names), *when, *more)))


def _of_others(contract: Contract, names: Sequence[str]) -> list[str]:
    """Fields of other versions among the columns; a contract that chooses its own chooses none."""
    if contract.hot_fields is not None:
        return []
    known = {f.name for f in contract.fields}
    return [name for name in names if not name.startswith("_") and name not in known]


def write(
    table: Table, rows: pa.Table, contract: Contract, deadline: Deadline, waiting: Waiting
) -> HotOutcome:
    """Put the hot rows of a landing object; what the table will not take in time is told."""
    mask = hot_mask(rows, contract)
    hot = rows.filter(mask)
    keys = keys_of(hot, contract)
    distinct = _first_of_each(keys)
    undone = table.put_each(distinct, _made(hot, contract, distinct), deadline, waiting)
    refused = []
    if undone:
        places = pc.indices_nonzero(mask).to_pylist()
        refused = [place for place, key in zip(places, keys, strict=True) if key in undone]
    index = rows.column("_index").take(pa.array(refused, pa.int64())).to_pylist()
    return HotOutcome(
        written=len(keys) - len(refused),
        refused=len(refused),
        items=len(distinct) - len(undone),
        indexes=tuple(sorted(set(index))),
        rows=tuple(refused),
    )


def items_of(rows: pa.Table, contract: Contract) -> tuple[list[Key], dict[Key, Item]]:
    """The key of each row, and the items by key: repeats within a Delivery are one item."""
    keys = keys_of(rows, contract)
    distinct = _first_of_each(keys)
    return keys, dict(zip(distinct, _made(rows, contract, distinct), strict=True))


def _first_of_each(keys: list[Key]) -> dict[Key, int]:
    """Each key, and the place of the first row that has it: the others' items are the same."""
    places: dict[Key, int] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, place)
    return places


def _made(rows: pa.Table, contract: Contract, places: dict[Key, int]) -> Iterator[Item]:
    """The items of these rows, a few thousand at a time: a cell of an item is 400 bytes."""
    every = iter(places.items())
    while some := list(islice(every, ROWS_MAX)):
        taken = rows.take(pa.array([place for _, place in some], pa.int64()))
        yield from _items(taken, contract, [key for key, _ in some])


def keys_of(rows: pa.Table, contract: Contract) -> list[Key]:
    """The key of each row's item."""
    moments = rows.column(contract.event_time)
    times = utc_text(moments).to_pylist()
    digests = [digest.hex() for digest in rows.column("_digest").to_pylist()]
    devices = rows.column(contract.device).to_pylist()
    tails = [f"#{digest}" for digest in digests]
    if not contract.record_id:
        ids = rows.column("_record_id").to_pylist()
        tails = [f"{tail}#{record_id}" for tail, record_id in zip(tails, ids, strict=True)]
    return [
        (f"{device}#{time[:10]}", time + tail)
        for device, time, tail in zip(devices, times, tails, strict=True)
    ]


def between(
    table: Table, device: str, low: datetime, high: datetime, contract: Contract
) -> Iterator[dict[str, Any]]:
    """A device's readings with `low <= event time <= high`, oldest first, as plain values."""
    first, last = low.astimezone(UTC), high.astimezone(UTC)
    for day in map(date.fromordinal, range(first.toordinal(), last.toordinal() + 1)):
        pk = f"{device}#{day.isoformat()}"
        for item in table.query(pk, _time(first), _time(last) + LATEST):
            yield reading(item, contract)


def reading(item: Item, contract: Contract) -> dict[str, Any]:
    """An item as plain values under the contract's field names, absent fields as None."""
    plain = {
        f.name: _READ[f.type](item[f.name]) if f.name in item else None
        for f in contract.hot_columns
    }
    if "_rescued" in item:
        plain["_rescued"] = item["_rescued"]["S"]
    return plain


def _time(moment: datetime) -> str:
    """A moment in UTC as sort keys begin: isoformat() pads a year to four digits, %Y may not."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _items(rows: pa.Table, contract: Contract, keys: Sequence[Key]) -> Iterator[Item]:
    names = [f.name for f in contract.hot_columns]
    names += _of_others(contract, rows.column_names)
    writers = [_WRITE[rows.schema.field(name).type] for name in names]
    if contract.hot_fields is None:
        names.append("_rescued")
        writers.append(_text)
    columns = [_plain(rows.column(name)) for name in names]
    ttl = contract.hot_ttl_seconds
    moments = rows.column(contract.event_time).cast(pa.int64()).to_pylist()
    for (pk, sk), moment, *values in zip(keys, moments, *columns, strict=True):
        item: Item = {"pk": {"S": pk}, "sk": {"S": sk}}
        if ttl is not None:
            item["expires_at"] = {"N": str(moment // MICROS + ttl)}
        for name, write_value, value in zip(names, writers, values, strict=True):
            if value is not None:
                item[name] = write_value(value)
        yield item


def _plain(column: pa.ChunkedArray) -> list[Any]:
    """Timestamps as ISO text, all else as Python values."""
    if pa.types.is_timestamp(column.type):
        column = utc_text(column)
    return column.to_pylist()  # type: ignore[no-any-return]


def _text(value: str) -> dict[str, Any]:
    return {"S": value}


def _integer(value: int) -> dict[str, Any]:
    return {"N": str(value)}


def _bool(value: bool) -> dict[str, Any]:  # noqa: FBT001  a value, not a flag
    return {"BOOL": value}


def _float(value: float) -> dict[str, Any]:
    if value == 0 or NUMBER_MIN <= abs(value) <= NUMBER_MAX:
        return {"N": repr(value)}
    return {"S": repr(value)}


_WRITE: dict[pa.DataType, Callable[[Any], dict[str, Any]]] = {
    ARROW_TYPES["string"]: _text,
    ARROW_TYPES["int64"]: _integer,
    ARROW_TYPES["float64"]: _float,
    ARROW_TYPES["bool"]: _bool,
    ARROW_TYPES["timestamp"]: _text,
}

_READ: dict[FieldType, Callable[[dict[str, Any]], Any]] = {
    "string": lambda value: value["S"],
    "int64": lambda value: int(value["N"]),
    "float64": lambda value: float(value.get("N") or value["S"]),
    "bool": lambda value: value["BOOL"],
    "timestamp": lambda value: value["S"],
}
