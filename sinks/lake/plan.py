"""What a compaction takes in: attempts in, objects out. Pure.

An attempt is taken whole: a generation counts by all elements of a position (law 5), and what is
left out of one would look as if it had never been written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sinks.lake.manifest import arrival_hour
from sinks.landing import LANDING
from sinks.ledger import Attempt

SETTLING = timedelta(minutes=10)
"""How late an attempt may show in the ledger under the minute it says that it settled in."""


UNKNOWN = -1  # rows of an object that was listed and not yet read


@dataclass(frozen=True, order=True)
class Object:
    """An object that Transform wrote, and its rows."""

    key: str
    rows: int

    @property
    def landed(self) -> bool:
        """Whether it holds good rows; else it marks what was quarantined or dropped."""
        return self.key.startswith(f"{LANDING}/")


@dataclass(frozen=True)
class Plan:
    """The objects that a compaction takes in, by key; `left` landing rows are for the next one.

    `settled_until`: all attempts that settled before are taken in by then, microseconds since 1970.
    """

    objects: tuple[Object, ...]
    settled_until: int
    left: int = 0

    @property
    def rows(self) -> int:
        return sum(one.rows for one in self.objects if one.landed)


def plan(
    attempts: Iterable[Attempt], absorbed: Collection[str], rows_max: int, now: datetime
) -> Plan:
    """The objects of some attempts that are not absorbed yet; the oldest arrivals come first.

    At least one attempt is taken, however many rows it has.
    """
    waiting = sorted(
        ((made, fresh) for made in attempts if (fresh := fresh_of(made, absorbed))),
        key=lambda one: (arrival_hour(one[0].objects[0]), one[0].settled_at, one[0].execution),
    )
    taken: set[Object] = set()
    rows = left = 0
    until = now - SETTLING
    for made, fresh in waiting:
        own = sum(one.rows for one in fresh if one.landed and one not in taken)
        if taken and rows + own > rows_max:
            left += own
            until = min(until, settled(made) - SETTLING)
        else:
            taken |= fresh
            rows += own
    return Plan(tuple(sorted(taken)), micros(until), left)


def settled(made: Attempt) -> datetime:
    """When an attempt settled."""
    return datetime.fromisoformat(made.settled_at)


def micros(moment: datetime) -> int:
    """A moment as microseconds since 1970."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def fresh_of(made: Attempt, absorbed: Collection[str]) -> set[Object]:
    """The objects of an attempt that are not absorbed."""
    objects = (
        Object(made.landing_key, made.landing_rows),
        Object(made.quarantine_key, made.quarantine_rows),
        Object(made.dropped_key, made.dropped_rows),
    )
    return {one for one in objects if one.key and one.key not in absorbed}
