"""The account of every record sent: waiting until each has a fate, then counting where they are.

What was sent is known from the sources' own answers; where it went is read from the ledger, from
the objects and from the hot table, each for itself. Nothing here asks the pipeline what it thinks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa

from infra.lake import Lake
from infra.push import Sent
from sinks import distinct, hot, ledger, raw
from sinks.bucket import Bucket
from sinks.ledger import Attempt
from sinks.table import Table
from transform.contract import Contract
from transform.pipeline import hot_mask
from transform.records import POSITION

POLL_SECONDS = 0.5
LOOK_BACK = timedelta(minutes=1)  # an attempt is looked for in the minute it settled and the next

Place = tuple[str, str, str]
"""A position: stream, shard, sequence."""

Parked = Callable[[], set[Place]]
"""Looks up which positions are parked."""


@dataclass
class Settlement:
    """Which sent positions have a fate, by following the ledger. `landing` is bytes by key."""

    bucket: Bucket
    table: Table
    started: datetime
    waiting: set[Place] = field(default_factory=set)
    settled: set[Place] = field(default_factory=set)
    landing: dict[str, int] = field(default_factory=dict)
    quarantine_keys: set[str] = field(default_factory=set)
    attempts: int = 0
    handed_back: int = 0
    dropped: int = 0
    on_attempt: Callable[[Attempt], None] = field(default=lambda _: None)
    _seen: set[str] = field(default_factory=set)
    _looked: datetime | None = None

    def follow(self) -> None:
        """Take in the attempts that settled since the last look."""
        now = datetime.now(UTC)
        since = (self._looked or self.started) - LOOK_BACK
        self._looked = now
        for attempt in ledger.settled_since(self.table, since, now):
            if attempt.execution not in self._seen:
                self._seen.add(attempt.execution)
                self._take(attempt)

    def sent(self, sent: Sent) -> None:
        """Add positions to wait for."""
        places = zip(sent.streams, sent.shards, sent.sequences, strict=True)
        self.waiting.update(place for place in places if place not in self.settled)

    def _take(self, attempt: Attempt) -> None:
        self.on_attempt(attempt)
        self.attempts += 1
        self.dropped += attempt.dropped
        self.handed_back += sum(high - low for low, high in attempt.retry)
        if attempt.landing_key:
            self.landing[attempt.landing_key] = attempt.landing_bytes
        if attempt.quarantine_key:
            self.quarantine_keys.add(attempt.quarantine_key)
        places = raw.read(self.bucket, attempt.raw_key, list(POSITION)).to_pydict()
        back = {index for low, high in attempt.retry for index in range(low, high)}
        for index, place in enumerate(zip(*(places[name] for name in POSITION), strict=True)):
            if index not in back:
                self.settled.add(place)
                self.waiting.discard(place)


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
        if not left or time.monotonic() >= until:
            return left
        time.sleep(POLL_SECONDS)


def parked_messages(sqs: Any, queue: str, dead_letters_url: str) -> set[Place]:
    """Messages in a queue's dead-letter queue, as positions of the queue they came from."""
    attributes = sqs.get_queue_attributes(
        QueueUrl=dead_letters_url, AttributeNames=["ApproximateNumberOfMessages"]
    )["Attributes"]
    if attributes["ApproximateNumberOfMessages"] == "0":
        return set()
    return {(queue, "", identifier) for identifier in _peeked(sqs, dead_letters_url)}


def _peeked(sqs: Any, url: str) -> Iterator[str]:
    while messages := sqs.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=5
    ).get("Messages"):
        for message in messages:
            yield message["MessageId"]


@dataclass(frozen=True)
class Account:
    """Where the sent messages are. All counts are of messages, unless a name says otherwise."""

    sent: int
    delivered: int
    dropped: int
    parked: int
    quarantined: dict[str, int]
    unaccounted: int
    repeats: int
    conflicts: int
    hot_expected: int
    hot_items: int
    parquet_rows: int
    parquet_rows_distinct: int
    files: int
    bytes: int
    seconds: float

    @property
    def conserved(self) -> bool:
        """Whether every message sent ended in exactly one place."""
        told = self.delivered + self.dropped + self.parked + sum(self.quarantined.values())
        return self.unaccounted == 0 and told == self.sent

    def to_json(self) -> dict[str, Any]:
        """The object that `--json` prints last."""
        rows = self.parquet_rows
        return {
            "sent": self.sent,
            "delivered": self.delivered,
            "dropped": self.dropped,
            "parked": self.parked,
            "quarantined": {**self.quarantined, "total": sum(self.quarantined.values())},
            "unaccounted": self.unaccounted,
            "repeats": self.repeats,
            "conflicts": self.conflicts,
            "hot_items": self.hot_items,
            "hot_expected": self.hot_expected,
            "parquet_rows": rows,
            "parquet_rows_distinct": self.parquet_rows_distinct,
            "files": self.files,
            "bytes_per_row": round(self.bytes / rows, 1) if rows else 0.0,
            "seconds": round(self.seconds, 3),
            "records_per_second": round(self.sent / self.seconds, 1) if self.seconds else 0.0,
        }


def take(  # noqa: PLR0913, PLR0917  one argument for each place a record can be
    lake: Lake,
    contract: Contract,
    hot_table: Table,
    settlement: Settlement,
    sent: Sent,
    parked: set[Place],
    seconds: float,
) -> Account:
    """Count where every sent message is, from the objects themselves and the hot table.

    Rows are counted under the sent positions only, so an earlier run's records do not blur this
    one's account.
    """
    landed = lake.landing(contract, sorted(settlement.landing))
    rejected = lake.quarantine(contract, sorted(settlement.quarantine_keys))
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        db.register("sent", _positions(sent, parked))
        db.register("landed", landed)
        db.register("rejected", rejected)
        for view, sql in (
            ("delivered", distinct.delivered("landed", "rejected")),
            ("set_aside", distinct.set_aside("landed", "rejected")),
        ):
            db.execute(
                f"CREATE TABLE {view} AS SELECT * FROM ({sql}) "
                f"SEMI JOIN sent USING ({distinct.POSITION})"
            )
        rows, distinct_rows, ids = _one(
            db,
            "SELECT count(*), count(DISTINCT (_record_id, _digest)), count(DISTINCT _record_id) "
            "FROM delivered",
        )
        reasons = dict(
            db.execute(
                "SELECT _reason, count(*) FROM set_aside GROUP BY ALL ORDER BY ALL"
            ).fetchall()
        )
        unaccounted = max(_one(db, _UNACCOUNTED)[0] - settlement.dropped, 0)
        kept = db.sql("SELECT * FROM delivered").to_arrow_table()
    expected = hot_keys(kept, contract)
    return Account(
        sent=sent.total(),
        delivered=rows,
        dropped=settlement.dropped,
        parked=sum(
            count
            for place, count in zip(_places(sent), sent.messages, strict=True)
            if place in parked
        ),
        quarantined=reasons,
        unaccounted=unaccounted,
        repeats=rows - distinct_rows,
        conflicts=distinct_rows - ids,
        hot_expected=len(expected),
        hot_items=sum(key in expected for key in hot_table.all_keys()),
        parquet_rows=rows,
        parquet_rows_distinct=distinct_rows,
        files=len(settlement.landing),
        bytes=sum(settlement.landing.values()),
        seconds=seconds,
    )


_UNACCOUNTED = f"""
    SELECT coalesce(sum(abs(sent.messages - coalesce(found.rows, 0))), 0)::BIGINT
    FROM sent LEFT JOIN (
        SELECT {distinct.POSITION}, count(*) AS rows
        FROM (
            SELECT {distinct.POSITION} FROM delivered
            UNION ALL
            SELECT {distinct.POSITION} FROM set_aside
        )
        GROUP BY ALL
    ) AS found USING ({distinct.POSITION})
    WHERE NOT sent.parked
"""


def hot_keys(rows: pa.Table, contract: Contract) -> set[tuple[str, str]]:
    """The hot table's keys of these rows."""
    keys, _ = hot.items_of(rows.filter(hot_mask(rows, contract)), contract)
    return set(keys)


def _positions(sent: Sent, parked: set[Place]) -> pa.Table:
    return pa.table(
        {
            "_stream": pa.array(sent.streams, pa.string()),
            "_shard": pa.array(sent.shards, pa.string()),
            "_sequence": pa.array(sent.sequences, pa.string()),
            "messages": pa.array(sent.messages, pa.int64()),
            "parked": pa.array([place in parked for place in _places(sent)], pa.bool_()),
        }
    )


def _places(sent: Sent) -> Iterator[Place]:
    return zip(sent.streams, sent.shards, sent.sequences, strict=True)


def _one(db: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    return db.execute(sql).fetchall()[0]
