"""Sweep: hot rows that count and that nobody owes become debts, as any other (law 6).

An attempt may land a record and end before it has told of it, and a later attempt settle the record
otherwise: as a killer, by other rules, or from raw that has expired since. By law 5 the landed row
is delivered, but no attempt that came to its end has written or owed its item.

    ledger, landed and set aside ──▶ rows that are due ──▶ debts ──▶ repair queue, then a mark

It may run at any moment and any number of times. It looks at what no attempt can still be at, and
at records that no source will bring again: those settled by some attempt, and those of an arrival
that no source keeps. What it owes is marked in the ledger, so the next sweep owes it no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ingest.repair import living, superseded
from ingest.settings import Wiring
from sinks import control, distinct, fates, hot, landing, ledger, repair
from sinks.control import Reprocessed
from sinks.deadline import Deadline
from sinks.ledger import Attempt, Books, Owed
from sinks.repair import DEBT_ROWS_MAX, Debt, Span
from transform.tables import MICROS

QUIET_SECONDS = 900.0  # Lambda's longest timeout: no attempt is still at what landed before that
KEPT_DAYS = 14  # SQS's longest retention, twice our stream's: no source brings older records again
OWE_SECONDS = 60.0
ROOM_SHARE = 0.5  # of the queue's limit: the rest is for what the table refuses meanwhile

PLACES = pa.schema([("_object", pa.string()), ("_row", pa.int64())])
SPANS = pa.schema([("_object", pa.string()), ("low", pa.int64()), ("high", pa.int64())])

_DUE = f"""
    WITH reported AS (
        SELECT {distinct.POSITION} FROM landed JOIN spans USING (_object)
        WHERE _index >= low AND _index < high
        UNION
        SELECT {distinct.POSITION} FROM rejected JOIN spans USING (_object)
        WHERE _index >= low AND _index < high
        UNION
        SELECT {distinct.POSITION} FROM dropped JOIN spans USING (_object)
        WHERE _index >= low AND _index < high
    ),
    done AS (
        SELECT {distinct.ELEMENT}, _generation FROM (
            SELECT landed.* FROM landed JOIN spans USING (_object)
            WHERE _index >= low AND _index < high
        ) ANTI JOIN undone USING (_object, _row)
        UNION
        SELECT {distinct.ELEMENT}, _generation FROM landed SEMI JOIN booked USING (_object, _row)
    )
    SELECT _object, _row FROM ({fates.TABLES.delivered()})
    SEMI JOIN quiet USING (_object)
    ANTI JOIN done USING ({distinct.ELEMENT}, _generation)
    WHERE epoch_us(_arrival) < {{kept}} OR ({distinct.POSITION}) IN (FROM reported)
    ORDER BY ALL
"""  # noqa: S608  names of our own


@dataclass
class Report:
    """What a sweep found: debts of so many rows, of which `left` are for the next one to owe."""

    debts: int = 0
    rows: int = 0
    left: int = 0
    objects: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def sweep(wiring: Wiring) -> Report:
    """Owe what is due. Raises a `SinkError` where the world refuses to be read."""
    debts = due(wiring)
    report = told(debts)
    queue = wiring.repair_queue
    if not debts or queue is None:
        report.left = len(debts)
        return report
    deadline = Deadline(wiring.clock() + OWE_SECONDS, wiring.clock)
    room = ROOM_SHARE * wiring.settings.repair.rows_max / DEBT_ROWS_MAX - queue.messages()
    taken = repair.owe(queue, debts[: max(round(room), 0)], deadline, wiring.waiting)
    now = datetime.fromtimestamp(wiring.clock(), UTC).isoformat(timespec="milliseconds")
    marks = [Owed(debt.id, debt.landing_key, debt.rows, now) for debt in taken]
    unmarked = ledger.mark_owed(wiring.ledger_table, marks, deadline, wiring.waiting)
    report.left = len(debts) - len(taken) + len(unmarked)
    return report


def told(debts: list[Debt]) -> Report:
    """What these debts come to."""
    rows = sum(len(debt.places) for debt in debts)
    return Report(len(debts), rows, 0, sorted({debt.landing_key for debt in debts}))


def due(wiring: Wiring) -> list[Debt]:
    """The debts that nobody has taken on; nothing is written.

    The ledger is read before the objects: what settles in between is then new, and left alone.
    """
    redone = control.reprocessed(wiring.bucket)
    books = ledger.books(wiring.ledger_table)
    own = wiring.contract
    before = wiring.clock() - QUIET_SECONDS
    written = wiring.bucket.written(f"{landing.LANDING}/{own.name}/")
    quiet = [key for key, at in written if at < before]
    spans = [span for attempt in books.attempts for span in _spans(attempt)]
    booked, undone = _booked(books)
    if set(quiet) <= _whole(books.attempts) - {key for key, _ in undone}:
        return []
    known = fates.placed(wiring.bucket, own)
    found = known.ask(
        _DUE.format(kept=int(wiring.clock() * MICROS) - KEPT_DAYS * 86_400 * MICROS),
        quiet=pa.table({"_object": pa.array(quiet, pa.string())}),
        spans=pa.Table.from_pylist(
            [{"_object": key, "low": low, "high": high} for key, (low, high) in spans], SPANS
        ),
        booked=_places(booked),
        undone=_places(undone),
    ).fetchall()
    by_object: dict[str, list[int]] = {}
    for key, place in found:
        by_object.setdefault(key, []).append(place)
    return [debt for key, places in by_object.items() for debt in _of(wiring, key, places, redone)]


def _of(wiring: Wiring, key: str, places: list[int], redone: list[Reprocessed]) -> Iterator[Debt]:
    """The debts for those of these rows that have an item the hot table should hold.

    Not what a reprocess that is running will make again. One that was left undone runs no more.
    """
    landed = landing.open_(wiring.bucket, key)
    contract = wiring.contracts.behind(wiring.bucket, landed, wiring.contract)
    rows = landed.rows([*hot.columns_of(contract), "_epoch", "_raw"])
    rows = rows.take(pa.array(places, pa.int64()))
    running = [span for span in redone[-1:] if not span.done]
    wanted = pc.and_not(living(rows, contract, wiring.clock()), superseded(rows, running))
    rows, kept = rows.filter(wanted), pa.array(places).filter(wanted).to_pylist()
    if kept:
        yield from repair.debts_of(
            wiring.settings.pipeline,
            key,
            rows.column("_raw")[0].as_py(),
            kept,
            rows.column("_index").to_pylist(),
            max((span.epoch for span in redone), default=0),
        )


def _spans(attempt: Attempt) -> Iterator[tuple[str, Span]]:
    """The source records that an attempt is done with, by each object that has rows of them."""
    back = attempt.handed_back
    done = repair.spans([index for index in attempt.indexes if index not in back])
    for key in filter(None, (attempt.landing_key, attempt.quarantine_key, attempt.dropped_key)):
        for span in done:
            yield key, span


def _whole(attempts: Iterable[Attempt]) -> set[str]:
    """Landing objects of which an attempt is done with every row."""
    return {attempt.landing_key for attempt in attempts if not attempt.retry}


def _booked(books: Books) -> tuple[set[tuple[str, int]], set[tuple[str, int]]]:
    """Rows that debts of any kind have seen to; and those that a paid debt left to a reprocess."""
    booked = set(_each((mark.landing_key, mark.rows) for mark in books.open_swept))
    left: set[tuple[str, int]] = set()
    for mark in books.paid.values():
        gone = set(_each([(mark.landing_key, mark.superseded)]))
        booked |= set(_each([(mark.landing_key, mark.rows)])) - gone
        left |= gone
    return booked, left - booked


def _each(spans: Iterable[tuple[str, Iterable[Span]]]) -> Iterator[tuple[str, int]]:
    for key, ranges in spans:
        for low, high in ranges:
            for place in range(low, high):
                yield key, place


def _places(rows: set[tuple[str, int]]) -> pa.Table:
    return pa.Table.from_pylist([{"_object": key, "_row": row} for key, row in rows], PLACES)
