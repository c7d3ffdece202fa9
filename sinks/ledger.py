"""The ledger: one item per attempt at a Delivery, written by the workflow's Settle, never replaced.

    pk = <minute it settled, UTC>#<0 to 7>       so that a minute's writes spread, and a reader
    sk = <the execution's ARN>                   can find everything since a moment by its key

The item is put by the state machine itself (`infra/workflows/batch.asl.json`); this module reads.
Beside attempts lie the marks of debts: those paid, put by the repair function, and those that no
attempt took on but a sweep (`ingest/sweep.py`):

    pk = paid#<debt id>, sk = paid
    pk = owed#<debt id>, sk = owed
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sinks.deadline import Deadline
from sinks.table import Item, Table, Waiting

PAID = "paid#"
OWED = "owed#"
Span = tuple[int, int]
"""Places in a landing object, from the first to behind the last."""

_UNTOLD: Item = {
    "shard": {"S": ""},
    "archived": {"N": "0"},
    "first_arrival": {"N": "0"},
    "last_arrival": {"N": "0"},
}
"""What items from before it was told do not say."""

BUCKETS = 8  # of 1,000 writes a second each, DynamoDB's ceiling for one partition


@dataclass(frozen=True)
class Attempt:
    """What one execution did with one Delivery, or a part of it. `first` is its place in raw.

    Counts are of source records, `*_rows` of rows; `repair_rows` of hot rows are owed by the debts
    of these ids, `repair`. Of the Delivery as its mapping brought it are told: how many records
    were `archived`, their `shard` and their arrivals, in microseconds since 1970. A queue's have no
    shard, and what no mapping brought (a replay) has neither; nor have items from before.
    """

    execution: str
    settled_at: str
    pipeline: str
    contract: str
    stream: str
    shard: str
    raw_key: str
    archived: int
    first_arrival: int
    last_arrival: int
    outcome: str
    reason: str
    epoch: int
    version: int
    generation: str
    first: int
    received: int
    delivered: int
    dropped: int
    quarantined: int
    retry: tuple[tuple[int, int], ...]
    landing_key: str
    landing_rows: int
    landing_bytes: int
    quarantine_key: str
    quarantine_rows: int
    dropped_key: str
    dropped_rows: int
    hot_rows: int
    hot_written: int
    repair_rows: int
    repair: tuple[str, ...]

    @property
    def indexes(self) -> range:
        """Which of the raw object's records the attempt was at: a part of a Delivery, or all."""
        return range(self.first, self.first + self.received)

    @property
    def done(self) -> list[int]:
        """The indexes in the raw object whose records have their fate."""
        back = self.handed_back
        return [index for index in self.indexes if index not in back]

    @property
    def objects(self) -> list[str]:
        """The keys of the objects that have rows of its records."""
        keys = (self.landing_key, self.quarantine_key, self.dropped_key)
        return [key for key in keys if key]

    @property
    def handed_back(self) -> set[int]:
        """The indexes in the raw object that must come again."""
        return {self.first + index for low, high in self.retry for index in range(low, high)}


def bucket_of(raw_key: str) -> int:
    """Which of the minute's partitions an attempt at this raw object settles in."""
    return int(raw_key.rpartition("/")[2][:8], 16) % BUCKETS


def settled_since(table: Table, since: datetime, until: datetime) -> Iterator[Attempt]:
    """Attempts settled in the minutes from `since` to `until`, both included, by minute."""
    minute = since.astimezone(UTC).replace(second=0, microsecond=0)
    while minute <= until:
        for bucket in range(BUCKETS):
            for item in table.query(f"{minute:%Y-%m-%dT%H:%M}#{bucket}", "a", "~"):
                yield attempt(item)
        minute += timedelta(minutes=1)


def attempts(table: Table) -> Iterator[Attempt]:
    """Every attempt there is, by scanning the table."""
    for item in table.scan():
        if not str(item["pk"]["S"]).startswith((PAID, OWED)):
            yield attempt(item)


@dataclass(frozen=True)
class Paid:
    """A debt that the hot table owes no longer: its rows are written, or no longer wanted.

    `superseded` are those left out because a reprocess was to make them again.
    """

    debt: str
    landing_key: str
    rows: tuple[Span, ...]
    paid_at: str
    superseded: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Owed:
    """A debt that a sweep took on: the message is durable in the repair queue."""

    debt: str
    landing_key: str
    rows: tuple[Span, ...]
    owed_at: str


@dataclass(frozen=True)
class Books:
    """The whole ledger, by one scan: attempts, and by debt id what sweeps took on and is paid."""

    attempts: tuple[Attempt, ...]
    swept: Mapping[str, Owed]
    paid: Mapping[str, Paid]

    @property
    def owed(self) -> dict[str, Attempt]:
        """Debts not paid yet, each with an attempt that took it on."""
        taken = {debt: made for made in self.attempts for debt in made.repair}
        return {debt: made for debt, made in taken.items() if debt not in self.paid}

    @property
    def open_swept(self) -> list[Owed]:
        """What sweeps took on and the repair function has not paid yet."""
        return [mark for debt, mark in self.swept.items() if debt not in self.paid]


def books(table: Table) -> Books:
    """Read the whole ledger."""
    found: list[Attempt] = []
    swept: dict[str, Owed] = {}
    paid: dict[str, Paid] = {}
    for item in table.scan():
        name = str(item["pk"]["S"])
        if name.startswith(PAID):
            mark = _paid(item)
            paid[mark.debt] = mark
        elif name.startswith(OWED):
            taken = _owed(item)
            swept[taken.debt] = taken
        else:
            found.append(attempt(item))
    return Books(tuple(found), swept, paid)


def debts(table: Table) -> tuple[dict[str, Attempt], dict[str, Paid]]:
    """Debts still owed, with an attempt that took each on; and those paid. By debt id, by scanning.

    A paid debt may be no attempt's: its message was sent, and the execution ended before Settle.
    """
    known = books(table)
    return known.owed, dict(known.paid)


def mark_paid(table: Table, paid: Iterable[Paid], deadline: Deadline, waiting: Waiting) -> set[str]:
    """Put the marks; returns the debts whose mark was not acknowledged by the deadline."""
    items = {
        (PAID + mark.debt, "paid"): {
            "pk": {"S": PAID + mark.debt},
            "sk": {"S": "paid"},
            "landing_key": {"S": mark.landing_key},
            "rows": {"S": json.dumps(mark.rows)},
            "superseded": {"S": json.dumps(mark.superseded)},
            "paid_at": {"S": mark.paid_at},
        }
        for mark in paid
    }
    undone = table.put_all(items, deadline, waiting)
    return {pk.removeprefix(PAID) for pk, _ in undone}


def mark_owed(table: Table, owed: Iterable[Owed], deadline: Deadline, waiting: Waiting) -> set[str]:
    """Put the marks; returns the debts whose mark was not acknowledged by the deadline."""
    items = {
        (OWED + mark.debt, "owed"): {
            "pk": {"S": OWED + mark.debt},
            "sk": {"S": "owed"},
            "landing_key": {"S": mark.landing_key},
            "rows": {"S": json.dumps(mark.rows)},
            "owed_at": {"S": mark.owed_at},
        }
        for mark in owed
    }
    undone = table.put_all(items, deadline, waiting)
    return {pk.removeprefix(OWED) for pk, _ in undone}


def _paid(item: Item) -> Paid:
    return Paid(
        debt=item["pk"]["S"].removeprefix(PAID),
        landing_key=item["landing_key"]["S"],
        rows=_spans(item["rows"]),
        paid_at=item["paid_at"]["S"],
        superseded=_spans(item.get("superseded", {"S": "[]"})),
    )


def _owed(item: Item) -> Owed:
    return Owed(
        debt=item["pk"]["S"].removeprefix(OWED),
        landing_key=item["landing_key"]["S"],
        rows=_spans(item["rows"]),
        owed_at=item["owed_at"]["S"],
    )


def _spans(value: Mapping[str, str]) -> tuple[Span, ...]:
    return tuple((low, high) for low, high in json.loads(value["S"]))


def attempt(item: Item) -> Attempt:
    """An item as an `Attempt`."""
    item = {**_UNTOLD, **item}
    values: dict[str, Any] = {}
    for name, kind in Attempt.__annotations__.items():
        if name == "execution":
            values[name] = item["sk"]["S"]
        elif name == "retry":
            values[name] = tuple((low, high) for low, high in json.loads(item[name]["S"]))
        elif name == "repair":
            values[name] = tuple(item[name]["S"].split())
        else:
            values[name] = int(item[name]["N"]) if kind == "int" else item[name]["S"]
    return Attempt(**values)
