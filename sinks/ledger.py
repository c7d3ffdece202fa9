"""The ledger: one item per attempt at a Delivery, written by the workflow's Settle, never replaced.

    pk = <minute it settled, UTC>#<0 to 7>       so that a minute's writes spread, and a reader
    sk = <the execution's ARN>                   can find everything since a moment by its key

The item is put by the state machine itself (`infra/workflows/batch.asl.json`); this module reads.
Beside attempts lie the marks of paid debts, put by the repair function:

    pk = paid#<debt id>, sk = paid
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sinks.deadline import Deadline
from sinks.table import Item, Table, Waiting

PAID = "paid#"
BUCKETS = 8  # of 1,000 writes a second each, DynamoDB's ceiling for one partition


@dataclass(frozen=True)
class Attempt:
    """What one execution did with one Delivery, or a part of it. `first` is its place in raw.

    Counts are of source records, `*_rows` of rows; `repair_rows` of hot rows are owed by the debts
    of these ids, `repair`.
    """

    execution: str
    settled_at: str
    pipeline: str
    contract: str
    stream: str
    raw_key: str
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
        if not _is_paid(item):
            yield attempt(item)


@dataclass(frozen=True)
class Paid:
    """A debt that the hot table owes no longer: its rows are written, or no longer wanted."""

    debt: str
    landing_key: str
    rows: tuple[tuple[int, int], ...]
    paid_at: str


def debts(table: Table) -> tuple[dict[str, Attempt], dict[str, Paid]]:
    """Debts still owed, with an attempt that took each on; and those paid. By debt id, by scanning.

    A paid debt may be no attempt's: its message was sent, and the execution ended before Settle.
    """
    taken: dict[str, Attempt] = {}
    paid: dict[str, Paid] = {}
    for item in table.scan():
        if _is_paid(item):
            mark = _paid(item)
            paid[mark.debt] = mark
        else:
            made = attempt(item)
            taken.update(dict.fromkeys(made.repair, made))
    return {debt: made for debt, made in taken.items() if debt not in paid}, paid


def mark_paid(table: Table, paid: Iterable[Paid], deadline: Deadline, waiting: Waiting) -> set[str]:
    """Put the marks; returns the debts whose mark was not acknowledged by the deadline."""
    items = {
        (PAID + mark.debt, "paid"): {
            "pk": {"S": PAID + mark.debt},
            "sk": {"S": "paid"},
            "landing_key": {"S": mark.landing_key},
            "rows": {"S": json.dumps(mark.rows)},
            "paid_at": {"S": mark.paid_at},
        }
        for mark in paid
    }
    undone = table.put_all(items, deadline, waiting)
    return {pk.removeprefix(PAID) for pk, _ in undone}


def _is_paid(item: Item) -> bool:
    return str(item["pk"]["S"]).startswith(PAID)


def _paid(item: Item) -> Paid:
    return Paid(
        debt=item["pk"]["S"].removeprefix(PAID),
        landing_key=item["landing_key"]["S"],
        rows=tuple((low, high) for low, high in json.loads(item["rows"]["S"])),
        paid_at=item["paid_at"]["S"],
    )


def attempt(item: Item) -> Attempt:
    """An item as an `Attempt`."""
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
