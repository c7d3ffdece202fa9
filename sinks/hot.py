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

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sinks import puts
from sinks.deadline import Deadline
from sinks.table import Item, Key, Table, Waiting
from sinks.writes import NEWEST_BY
from transform.columns import FEW, repeated, scalar, whole
from transform.contract import Contract
from transform.field_types import FieldType, utc_text
from transform.records import DIGEST, DIGEST_BYTES, POSITION
from transform.tables import hot_mask

ROWS_MAX = 8_192  # whose puts are made at once
ROWS_AT_ONCE = 20_000  # are held with all their columns; an ordinary Delivery has no more
Parts = Callable[[], Iterable[pa.Table]]  # all rows again, a few thousand at a time
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
    place = () if contract.record_id else ("_record_id",)
    more = ("_rescued", *place, "_digest", "_arrival")
    return list(dict.fromkeys((*own, *puts.of_others(contract, names), *when, *more)))


def key_columns_of(contract: Contract) -> list[str]:
    """The landing columns that say which rows are hot, and which want one item.

    Of those in `POSITION` only is asked which rows have the same.
    """
    when = contract.hot_when.names if contract.hot_when else ()
    place: tuple[str, ...] = (*POSITION, "_sub", "_child")
    if contract.record_id:
        place = ()
    elif contract.latest:
        place = ("_record_id",)  # which the newest is told by
    own = (contract.device, contract.event_time, "_digest")
    return list(dict.fromkeys((*own, *place, *when, "_arrival")))


def write(  # noqa: PLR0913, PLR0917  what, where, until when, and how it is read
    table: Table,
    rows: pa.Table,
    contract: Contract,
    deadline: Deadline,
    waiting: Waiting,
    parts: Parts | None = None,
) -> HotOutcome:
    """Put the hot rows of a landing object; what the table will not take in time is told.

    With `parts`, from which items are made, `rows` need only `key_columns_of` the contract.
    """
    mask = hot_mask(rows, contract)
    if mask.true_count < len(mask):
        rows = rows.filter(mask)
        parts = parts and partial(_filtered, parts, mask)
    wanted = Wanted.of(rows, contract, parts)
    puts_ = wanted.puts()
    left = table.put_each(len(wanted), puts_, deadline, waiting, newest=contract.latest)
    refused = pc.indices_nonzero(mask).filter(wanted.rows_of(left)).to_pylist() if left else []
    return HotOutcome(
        written=mask.true_count - len(refused),
        refused=len(refused),
        items=len(wanted) - len(left),
        rows=tuple(refused),
    )


@dataclass(frozen=True)
class Wanted:
    """The items that rows want: those of the rows at `places`, or of all where that is None.

    Repeats want one item, and so do all readings of a device in layout `latest`: its newest.
    Of many rows `rows` has only what tells them apart; whole they come again, as `parts`.
    """

    rows: pa.Table
    contract: Contract
    places: pa.Array | None
    parts: Parts | None = None

    @classmethod
    def of(cls, rows: pa.Table, contract: Contract, parts: Parts | None = None) -> Wanted:
        if contract.latest or not any(_differ(rows[name]) for name in _telling(rows, contract)):
            return cls(rows, contract, _wanted(rows, contract), parts)
        return cls(rows, contract, None, parts)

    def __len__(self) -> int:
        return self.rows.num_rows if self.places is None else len(self.places)

    def puts(self) -> Iterator[bytes]:
        """The puts of the items, made a few thousand at a time."""
        return chain.from_iterable(map(self._texts, self._some()))

    def _texts(self, rows: pa.Table) -> list[bytes]:
        time = _times(rows, self.contract)
        keys = key_attributes(rows, self.contract, time)
        return puts.texts(rows, self.contract, keys, time)

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
        if self.parts is None:
            rows = self.rows if self.places is None else self.rows.take(self.places)
            yield from _slices(rows)
        elif self.places is None:
            yield from self.parts()
        else:
            every = pa.array(range(self.rows.num_rows), pa.int64())
            yield from _filtered(self.parts, pc.is_in(every, value_set=self.places))


def _slices(rows: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, rows.num_rows, ROWS_MAX):
        yield rows.slice(start, ROWS_MAX)


def _filtered(parts: Parts, mask: pa.Array) -> Iterator[pa.Table]:
    """Those rows of parts that a mask of all of them says."""
    start = 0
    for rows in parts():
        yield rows.filter(mask.slice(start, rows.num_rows))
        start += rows.num_rows


def key_attributes(
    rows: pa.Table, contract: Contract, time: pa.Array | None = None
) -> dict[str, pa.Array]:
    """The attributes by which each row's item is found, and those by which it is newer.

    `time` is the event times' text, where it is made already.
    """
    time = _times(rows, contract) if time is None else time
    parts = [time, _hex(whole(rows.column("_digest")))]
    if not contract.record_id:
        parts.append(whole(rows.column("_record_id")))
    device, place = whole(rows[contract.device]), pc.binary_join_element_wise(*parts, scalar("#"))
    if contract.latest:
        return {"pk": device, "sk": repeated(LATEST, pa.string(), len(device)), NEWEST_BY: place}
    day = pc.utf8_slice_codeunits(time, 0, 10)
    return {"pk": pc.binary_join_element_wise(device, day, scalar("#")), "sk": place}


def _times(rows: pa.Table, contract: Contract) -> pa.Array:
    return utc_text(whole(rows.column(contract.event_time)))


def keys_of(rows: pa.Table, contract: Contract) -> list[Key]:
    """What tells readings apart: each one's partition key, and its place in time."""
    keys = key_attributes(rows, contract)
    places = keys.get(NEWEST_BY, keys["sk"])
    return list(zip(keys["pk"].to_pylist(), places.to_pylist(), strict=True))


def _telling(rows: pa.Table, contract: Contract) -> list[str]:
    """Columns of which each alone tells items apart, where no two of its values are the same."""
    alone = ("_digest",) if contract.record_id else ("_digest", "_record_id")
    return [name for name in alone if name in rows.column_names]


def _differ(column: pa.ChunkedArray) -> bool:
    """Whether no two values are the same. A hash table is faster, and of many rows 100 MB."""
    if 0 < len(column) <= FEW and column.type == DIGEST:
        data = _bytes_of(whole(column)).tobytes()  # cut in less time than a kernel begins
        own = {data[at : at + DIGEST_BYTES] for at in range(0, len(data), DIGEST_BYTES)}
        return len(own) == len(column)
    if len(column) <= ROWS_AT_ONCE:
        return bool(pc.count_distinct(column).as_py() == len(column))
    return bool(pc.all(_fresh([column], pc.sort_indices(column))).as_py())


def _same(rows: pa.Table, contract: Contract) -> pa.Array:
    """A number of each row: equal for rows that want the same item, and for no others."""
    order, fresh = _ordered(rows, contract)
    return pc.cumulative_sum(fresh.cast(pa.int64())).take(pc.sort_indices(order))


def _wanted(rows: pa.Table, contract: Contract) -> pa.Array:
    """The places of rows that stand for all that want the same item: of devices the newest."""
    order, fresh = _ordered(rows, contract)
    if contract.latest:
        fresh = pa.concat_arrays(
            [fresh.slice(1), pa.array([True] * min(len(fresh), 1), pa.bool_())]
        )
    places = order.filter(fresh)
    return places.take(pc.sort_indices(places))


def _ordered(rows: pa.Table, contract: Contract) -> tuple[pa.Array, pa.Array]:
    """Places in the order of items and time, and which of them begin another item."""
    names = [contract.device, contract.event_time, "_digest"]
    if not contract.record_id:
        told = "_record_id" in rows.column_names
        names += ["_record_id"] if told else [*POSITION, "_sub", "_child"]
    order = pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in names])
    apart = names[:1] if contract.latest else names
    return order, _fresh([rows.column(name) for name in apart], order)


def _fresh(columns: Sequence[pa.ChunkedArray], order: pa.Array) -> pa.Array:
    """Which rows, in an order, differ from the one before in any of these columns."""
    fresh = repeated(value=False, kind=pa.bool_(), count=max(len(order) - 1, 0))
    for column in columns:
        values = whole(column).take(order)
        fresh = pc.or_(fresh, pc.not_equal(values.slice(0, len(fresh)), values.slice(1)))
    return pa.concat_arrays([pa.array([True] * min(len(order), 1), pa.bool_()), fresh])


def _hex(digests: pa.Array) -> pa.Array:
    """Digests as hexadecimal text."""
    text = _bytes_of(digests).hex().encode()
    ends = array("i", range(0, len(text) + 1, 2 * DIGEST_BYTES))
    return pa.StringArray.from_buffers(len(digests), pa.py_buffer(ends), pa.py_buffer(text))


def _bytes_of(digests: pa.Array) -> memoryview:
    """Digests end to end."""
    fixed = digests if digests.type == DIGEST else digests.cast(DIGEST)
    _, data = fixed.buffers()
    low, high = (DIGEST_BYTES * n for n in (fixed.offset, fixed.offset + len(fixed)))
    return memoryview(data)[low:high]


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
