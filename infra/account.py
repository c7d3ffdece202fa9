"""The account of every record sent: where each one is, counted there.

What was sent is known from the sources' own answers; where it went is read from the ledger, from
the objects and from the hot table, each for itself. Nothing here asks the pipeline what it thinks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from infra.fates import Place, Settlement
from infra.lake import Lake
from infra.push import Sent
from sinks import distinct, hot
from sinks.table import Key, Table
from transform.contract import Contract
from transform.tables import hot_mask


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
    attempts = settlement.attempts_at(set(sent.places()))
    landing = {a.landing_key: a.landing_bytes for a in attempts if a.landing_key}
    quarantine = {a.quarantine_key for a in attempts if a.quarantine_key}
    dropped = {a.dropped_key for a in attempts if a.dropped_key}
    landed = lake.landing(contract, sorted(landing))
    rejected = lake.quarantine(contract, sorted(quarantine))
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        db.register("sent", _positions(sent, parked))
        db.register("landed", landed)
        db.register("rejected", rejected)
        db.register("dropped", lake.dropped(contract, sorted(dropped)))
        _tell(db)
        rows, distinct_rows, ids = _one(db, _ROWS)
        reasons = dict(db.execute(_REASONS).fetchall())
        unaccounted, parked_messages = _one(db, _UNACCOUNTED)
        delivered, left_out = _one(db, _KEPT)
        kept = db.sql("SELECT * FROM delivered").to_arrow_table()
    expected = hot.Wanted.of(kept.filter(hot_mask(kept, contract)), contract).by_key().keys()
    return Account(
        sent=sent.total(),
        delivered=delivered,
        dropped=left_out,
        parked=parked_messages,
        quarantined=reasons,
        unaccounted=unaccounted,
        repeats=rows - distinct_rows,
        conflicts=distinct_rows - ids,
        hot_expected=len(expected),
        hot_items=_found(hot_table, set(expected), latest=contract.latest),
        parquet_rows=rows,
        parquet_rows_distinct=distinct_rows,
        files=len(landing),
        bytes=sum(landing.values()),
        seconds=seconds,
    )


def _found(table: Table, expected: set[Key], *, latest: bool) -> int:
    """How many of the items are there; of layout `latest` a newer one will do."""
    if not latest:
        return sum(key in expected for key in table.all_keys())
    newest = dict(table.all_keys())
    return sum(newest.get(device, "") >= place for device, place in expected)


def _tell(db: duckdb.DuckDBPyConnection) -> None:
    """Make what law 5 says of the sent positions, and of each message in them, into tables."""
    tables = distinct.Tables("landed", "rejected", "dropped")
    for view, sql in (
        ("delivered", tables.delivered()),
        ("set_aside", tables.set_aside()),
        ("left_out", tables.left_out()),
    ):
        db.execute(
            f"CREATE TABLE {view} AS SELECT * FROM ({sql}) "
            f"SEMI JOIN sent USING ({distinct.POSITION})"
        )
    db.execute(_TOLD)


_ROWS = """
    SELECT count(*), count(DISTINCT (_record_id, _digest)), count(DISTINCT _record_id)
    FROM delivered
"""

_REASONS = """
    SELECT reason, count(*) FROM told WHERE fate = 'quarantined' GROUP BY ALL ORDER BY ALL
"""

_KEPT = """
    SELECT count(*) FILTER (fate = 'delivered'), count(*) FILTER (fate = 'dropped') FROM told
"""

_TOLD = f"""
    CREATE TABLE told AS
    SELECT {distinct.POSITION}, _sub,
        {distinct.worst("fate")} AS fate,
        arg_min(_reason, _child) FILTER (fate = 'quarantined') AS reason
    FROM (
        SELECT {distinct.ELEMENT}, 'delivered' AS fate, NULL AS _reason FROM delivered
        UNION ALL SELECT {distinct.ELEMENT}, 'quarantined', _reason FROM set_aside
        UNION ALL SELECT {distinct.ELEMENT}, 'dropped', NULL FROM left_out
    )
    GROUP BY {distinct.POSITION}, _sub
"""
"""Each message's one fate, the worst of its rows: an array or a list comes to several."""

_UNACCOUNTED = f"""
    SELECT
        coalesce(sum(abs(messages - there)) FILTER (NOT parked OR there > 0), 0)::BIGINT,
        coalesce(sum(messages) FILTER (parked AND there = 0), 0)::BIGINT
    FROM (
        SELECT sent.messages, sent.parked, coalesce(found.there, 0) AS there
        FROM sent LEFT JOIN (
            SELECT {distinct.POSITION}, count(*) AS there FROM told GROUP BY ALL
        ) AS found USING ({distinct.POSITION})
    )
"""
"""Messages that are nowhere (or there twice), and those that are parked and have no better fate."""


def _positions(sent: Sent, parked: set[Place]) -> pa.Table:
    return pa.table(
        {
            "_stream": pa.array(sent.streams, pa.string()),
            "_shard": pa.array(sent.shards, pa.string()),
            "_sequence": pa.array(sent.sequences, pa.string()),
            "messages": pa.array(sent.messages, pa.int64()),
            "parked": pa.array([place in parked for place in sent.places()], pa.bool_()),
        }
    )


def _one(db: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    return db.execute(sql).fetchall()[0]
