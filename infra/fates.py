"""Following the ledger: which attempts settled, and which positions have a fate by them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from infra.push import Sent
from sinks import ledger, raw
from sinks.bucket import Bucket
from sinks.ledger import Attempt
from sinks.table import Table
from transform.records import POSITION

POLL_SECONDS = 0.5
LOOK_BACK = timedelta(minutes=1)  # an attempt is looked for in the minute it settled and the next
LOOK_BACK_EVERY = timedelta(seconds=5)  # a minute is eight queries; those before, seldom
USUALLY_SEEN = timedelta(seconds=2)  # after it settled

Place = tuple[str, str, str]
"""A position: stream, shard, sequence."""

Parked = Callable[[], set[Place]]
"""Looks up which positions are parked."""


class Follower:
    """New attempts, each once, from a moment on. What it remembers is bounded by `LOOK_BACK`.

    What is told of an attempt `USUALLY_SEEN` after it settled is found by the next look; what is
    told later, up to `LOOK_BACK`, by a look within `LOOK_BACK_EVERY`.
    """

    def __init__(
        self,
        table: Table,
        since: datetime,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._table, self._clock = table, clock
        self._since = since
        self._looked_back = since
        self._seen: dict[str, datetime] = {}

    def follow(self) -> list[Attempt]:
        """The attempts that settled since the last look."""
        now = self._clock()
        since = self._since - USUALLY_SEEN
        if now - self._looked_back >= LOOK_BACK_EVERY:
            since, self._looked_back = self._looked_back - LOOK_BACK, now
        fresh = [
            attempt
            for attempt in ledger.settled_since(self._table, since, now)
            if attempt.execution not in self._seen
        ]
        self._seen.update((attempt.execution, now) for attempt in fresh)
        horizon = self._looked_back - 3 * LOOK_BACK
        self._seen = {name: at for name, at in self._seen.items() if at >= horizon}
        self._since = now
        return fresh


@dataclass
class Settlement:
    """Which sent positions have a fate, by following the ledger."""

    bucket: Bucket
    follower: Follower
    waiting: set[Place] = field(default_factory=set)
    settled: set[Place] = field(default_factory=set)
    attempts: list[tuple[Attempt, frozenset[Place]]] = field(default_factory=list)

    def follow(self) -> None:
        """Take in the attempts that settled since the last look."""
        for attempt in self.follower.follow():
            columns = raw.read(self.bucket, attempt.raw_key, list(POSITION)).to_pydict()
            places = list(zip(*(columns[name] for name in POSITION), strict=True))
            back = attempt.handed_back
            done = {places[index] for index in attempt.indexes if index not in back}
            self.attempts.append((attempt, frozenset(places[index] for index in attempt.indexes)))
            self.settled |= done
            self.waiting -= done

    def sent(self, sent: Sent) -> None:
        """Add positions to wait for."""
        self.waiting.update(place for place in sent.places() if place not in self.settled)

    def attempts_at(self, places: set[Place]) -> list[Attempt]:
        """The attempts at Deliveries that held any of these positions."""
        return [attempt for attempt, held in self.attempts if not held.isdisjoint(places)]


def await_fates(
    settlement: Settlement,
    parked: Parked,
    timeout_seconds: float,
    progress: Callable[[Settlement], None],
) -> set[Place]:
    """Wait until no sent position is without a fate; returns those that are when time runs out."""
    until = time.monotonic() + timeout_seconds
    while True:
        settlement.follow()
        progress(settlement)
        left = settlement.waiting - parked() if settlement.waiting else set()
        if not left or time.monotonic() + POLL_SECONDS >= until:  # the next look would be late
            return left
        time.sleep(POLL_SECONDS)
