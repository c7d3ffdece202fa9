"""The hot store: DynamoDB items, one per reading or one per device, found by device and time.

    layout        reading                        latest
    pk            <device id>#<UTC day>          <device id>
    sk            <place in time>                latest
    _at                                          <place in time>
    ...           the contract's fields, `_rescued` where there is one, `expires_at` for the TTL

A reading's place in time is `<event time to the microsecond>#<digest of the element>[#<position>]`:
as text it sorts by time, and no two readings of a device have the same.

An item is a function of its record's bytes and contract alone; of layout `latest` that of greatest
place in time stays. So any order and any repeat of writes leaves the same table (law 6). Floats
that DynamoDB's numbers cannot hold are kept as text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sinks import puts
from sinks.deadline import Deadline
from sinks.puts import whole
from sinks.table import Item, Key, Table, Waiting
from sinks.writes import NEWEST_BY
from transform.contract import Contract
from transform.field_types import FieldType, utc_text
from transform.records import DIGEST, DIGEST_BYTES
from transform.tables import hot_mask, repeated

ROWS_MAX = 8_192  # whose puts are made at once
LATEST = "latest"  # sort key of layout `latest`
BEHIND = "~"  # sorts behind every digit, so `time + BEHIND` is behind all items of that time


@dataclass(frozen=True)
class HotOutcome:
    """`written` and `refused` count rows, `items` the items of what was written.

    `rows` are the places of refused rows in the table given.
    """

    written: int
    refused: int
    items: int
    rows: tuple[int, ...]


def columns_of(contract: Contract, names: Sequence[str] = ()) -> list[str]:
    """The landing columns that hot items are made of, of an object that has these.

    What versions of the contract beside it read has fields of their own, which it knows nothing of.
    """
    when = contract.hot_when.names if contract.hot_when else ()
    own = [f.name for f in contract.hot_columns]
    more = ("_rescued", "_record_id", "_digest", "_arrival", "_index")
    return list(dict.fromkeys((*own, *puts.of_others(contract, names), *when, *more)))


def write(
    table: Table, rows: pa.Table, contract: Contract, deadline: Deadline, waiting: Waiting
) -> HotOutcome:
    """Put the hot rows of a landing object; what the table will not take in time is told."""
    mask = hot_mask(rows, contract)
    wanted = Wanted.of(rows if pc.all(mask).as_py() else rows.filter(mask), contract)
    puts_ = wanted.puts()
    left = table.put_each(len(wanted), puts_, deadline, waiting, newest=contract.latest)
    places = pc.indices_nonzero(mask)
    refused = places.filter(wanted.rows_of(left)).to_pylist() if left else []
    return HotOutcome(
        written=len(places) - len(refused),
        refused=len(refused),
        items=len(wanted) - len(left),
        rows=tuple(refused),
    )


@dataclass(frozen=True)
class Wanted:
    """The items that rows want: those of the rows at `places`, or of all where that is None.

    Repeats want one item, and so do all readings of a device in layout `latest`: its newest.
    """

    rows: pa.Table
    contract: Contract
    places: pa.Array | None

    @classmethod
    def of(cls, rows: pa.Table, contract: Contract) -> Wanted:
        if contract.latest:
            return cls(rows, contract, _newest_of_each(key_attributes(rows, contract)))
        parts = ("_digest",) if contract.record_id else ("_digest", "_record_id")  # of a key
        if any(pc.count_distinct(rows[name]).as_py() == rows.num_rows for name in parts):
            return cls(rows, contract, None)
        return cls(rows, contract, _first_of_each(_same(rows, contract)))

    def __len__(self) -> int:
        return self.rows.num_rows if self.places is None else len(self.places)

    def puts(self) -> Iterator[bytes]:
        """The puts of the items, made a few thousand at a time."""
        for rows in self._some():
            yield from puts.texts(rows, self.contract, key_attributes(rows, self.contract))

    def by_key(self) -> dict[Key, bytes]:
        """The puts, by `keys_of` the rows that they are about."""
        keys = [key for rows in self._some() for key in keys_of(rows, self.contract)]
        return dict(zip(keys, self.puts(), strict=True))

    def rows_of(self, items: Collection[int]) -> pa.Array:
        """Which rows want these items, given by their places among the puts."""
        same, some = _same(self.rows, self.contract), pa.array(items, pa.int64())
        these = same.take(some if self.places is None else self.places.take(some))
        return pc.is_in(same, value_set=these)

    def _some(self) -> Iterator[pa.Table]:
        for start in range(0, len(self), ROWS_MAX):
            if self.places is None:
                yield self.rows.slice(start, ROWS_MAX)
            else:
                yield self.rows.take(self.places.slice(start, ROWS_MAX))


def key_attributes(rows: pa.Table, contract: Contract) -> dict[str, pa.Array]:
    """The attributes by which each row's item is found, and those by which it is newer."""
    time = utc_text(whole(rows.column(contract.event_time)))
    parts = [time, _hex(whole(rows.column("_digest")))]
    if not contract.record_id:
        parts.append(whole(rows.column("_record_id")))
    device, place = whole(rows[contract.device]), pc.binary_join_element_wise(*parts, "#")
    if contract.latest:
        return {"pk": device, "sk": repeated(LATEST, pa.string(), len(device)), NEWEST_BY: place}
    day = pc.utf8_slice_codeunits(time, 0, 10)
    return {"pk": pc.binary_join_element_wise(device, day, "#"), "sk": place}


def keys_of(rows: pa.Table, contract: Contract) -> list[Key]:
    """What tells readings apart: each one's partition key, and its place in time."""
    keys = key_attributes(rows, contract)
    places = keys.get(NEWEST_BY, keys["sk"])
    return list(zip(keys["pk"].to_pylist(), places.to_pylist(), strict=True))


def _same(rows: pa.Table, contract: Contract) -> pa.Array:
    """Equal for rows that want the same item, and for no others."""
    keys = key_attributes(rows, contract)
    return pc.binary_join_element_wise(keys["sk"], keys["pk"], "\0")


def _first_of_each(values: pa.Array) -> pa.Array:
    """The places where a value comes for the first time."""
    codes = values.dictionary_encode().indices  # counted up in the order of first appearance
    before = pc.cumulative_max(codes)
    fresh = pc.greater(codes.slice(1), before.slice(0, max(len(codes) - 1, 0)))
    first = pa.array([True] * min(len(codes), 1), pa.bool_())
    return pc.indices_nonzero(pa.concat_arrays([first, fresh]))


def _newest_of_each(keys: dict[str, pa.Array]) -> pa.Array:
    """The place of each partition key's row that is last in time."""
    order = [("pk", "ascending"), (NEWEST_BY, "ascending")]
    sorted_ = pc.sort_indices(pa.table(keys), sort_keys=order)
    devices = keys["pk"].take(sorted_)
    ends = pc.not_equal(devices.slice(0, max(len(devices) - 1, 0)), devices.slice(1))
    last = pa.array([True] * min(len(devices), 1), pa.bool_())
    return sorted_.filter(pa.concat_arrays([ends, last]))


def _hex(digests: pa.Array) -> pa.Array:
    """Digests as hexadecimal text."""
    fixed = digests.cast(DIGEST)
    _, data = fixed.buffers()
    low, high = (DIGEST_BYTES * n for n in (fixed.offset, fixed.offset + len(fixed)))
    text = pa.py_buffer(memoryview(data)[low:high].hex().encode())
    width = pa.binary(2 * DIGEST_BYTES)
    return pa.FixedSizeBinaryArray.from_buffers(width, len(digests), [None, text]).cast(pa.string())


def between(
    table: Table, device: str, low: datetime, high: datetime, contract: Contract
) -> Iterator[dict[str, Any]]:
    """A device's readings with `low <= event time <= high`, oldest first, as plain values."""
    first, last = low.astimezone(UTC), high.astimezone(UTC)
    if contract.latest:
        for item in table.query(device, LATEST, LATEST):
            if _time(first) <= item[NEWEST_BY]["S"] <= _time(last) + BEHIND:
                yield reading(item, contract)
        return
    for day in map(date.fromordinal, range(first.toordinal(), last.toordinal() + 1)):
        pk = f"{device}#{day.isoformat()}"
        for item in table.query(pk, _time(first), _time(last) + BEHIND):
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


_READ: dict[FieldType, Callable[[dict[str, Any]], Any]] = {
    "string": lambda value: value["S"],
    "int64": lambda value: int(value["N"]),
    "float64": lambda value: float(value.get("N") or value["S"]),
    "bool": lambda value: value["BOOL"],
    "timestamp": lambda value: value["S"],
}
