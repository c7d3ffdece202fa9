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

from collections.abc import Container, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ingest.repair import living, superseded
from ingest.settings import Wiring
from sinks import control, distinct, erasures, fates, hot, landing, ledger, repair
from sinks.bucket import Bucket
from sinks.control import Reprocessed
from sinks.deadline import Deadline
from sinks.lake import instead
from sinks.ledger import Attempt, Books, Owed
from sinks.repair import DEBT_ROWS_MAX, Debt, Span
from transform.tables import MICROS

QUIET_SECONDS = 900.0  # Lambda's longest timeout: no attempt is still at what landed before that
KEPT_DAYS = 14  # SQS's longest retention, twice our stream's: no source brings older records again
OWE_SECONDS = 60.0
ROOM_SHARE = 0.5  # of the queue's limit: the rest is for what the table refuses meanwhile

SPANS = pa.schema([("_object", pa.string()), ("low", pa.int64()), ("high", pa.int64())])
ELEMENT = [*distinct.ELEMENT.split(", "), "_generation"]

_REPORTED = f"""
    SELECT {distinct.POSITION} FROM {{table}} JOIN spans USING (_object)
    WHERE _index >= low AND _index < high
"""  # noqa: S608  names of our own
_DUE = f"""
    SELECT _object, _row FROM landed
    SEMI JOIN open_rows USING (_object, _row)
    SEMI JOIN ({fates.TABLES.chosen()}) USING ({distinct.POSITION}, _generation)
    WHERE epoch_us(_arrival) < {{kept}} OR ({distinct.POSITION}) IN (
        {" UNION ALL ".join(_REPORTED.format(table=table) for table in vars(fates.TABLES).values())}
    )
    QUALIFY row_number() OVER (PARTITION BY {distinct.ELEMENT} ORDER BY _raw, _index) = 1
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
    name = wiring.contract.name
    before = wiring.clock() - QUIET_SECONDS
    written = list(wiring.bucket.written(f"{landing.LANDING}/{name}/"))
    quiet = {key for key, at in written if at < before}
    seen = _SeenTo(books, erasures.digests(erasures.known(wiring.bucket)).keys())
    if quiet <= seen.whole:
        return []
    there = [key for key, _ in written]
    landed = _placed(wiring.bucket, there)
    open_rows = seen.open_rows(landed, quiet)
    if not open_rows.num_rows:
        return []
    rejected, dropped = (
        _placed(wiring.bucket, wiring.bucket.keys(f"{prefix}/{name}/"))
        for prefix in (landing.QUARANTINE, landing.DROPPED)
    )
    gone = _placed(
        wiring.bucket, instead.files(wiring.bucket, name, there)
    )  # law 5 asks for them too
    landed = pa.concat_tables([landed, gone])
    kept = int(wiring.clock() * MICROS) - KEPT_DAYS * 86_400 * MICROS
    spans = [span for attempt in books.attempts for span in _spans(attempt)]
    found = fates.Fates(landed, rejected, dropped).ask(
        _DUE.format(kept=kept), open_rows=open_rows, spans=pa.Table.from_pylist(spans, SPANS)
    )
    by_object: dict[str, list[int]] = {}
    for key, place in found.fetchall():
        by_object.setdefault(key, []).append(place)
    return [debt for key, places in by_object.items() for debt in _of(wiring, key, places, redone)]


def _of(wiring: Wiring, key: str, places: list[int], redone: list[Reprocessed]) -> Iterator[Debt]:
    """The debts for those of these rows that have an item the hot table should hold.

    Not what a reprocess that is running will make again. One that was left undone runs no more.
    """
    landed = landing.open_(wiring.bucket, key)
    contract = wiring.contracts.behind(wiring.bucket, landed, wiring.contract)
    rows = landed.rows([*hot.columns_of(contract), "_epoch", "_raw", "_index"])
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


def _placed(bucket: Bucket, keys: Iterable[str]) -> pa.Table:
    tables = [rows for _, rows in fates.placed(bucket, keys)]
    return pa.concat_tables([fates.PLACED.empty_table(), *tables])


def _spans(attempt: Attempt) -> Iterator[dict[str, Any]]:
    """The source records that an attempt is done with, by each object that has rows of them."""
    for key in attempt.objects:
        for low, high in repair.spans(attempt.done):
            yield {"_object": key, "low": low, "high": high}


class _SeenTo:
    """Landing rows whose items somebody has written or owes.

    By an attempt that is done with them, less what a debt of theirs left to a reprocess; or by a
    debt that is paid, or was taken on by a sweep.
    """

    def __init__(self, books: Books, again: Container[str]) -> None:
        """In objects that were written `again` the places of debts are not those of the rows.

        What such debts had seen to may be owed once more, and paying it changes nothing.
        """
        self._indexes: dict[str, set[int]] = {}
        self._booked: dict[str, set[int]] = {}
        self._left: dict[str, set[int]] = {}
        for attempt in books.attempts:
            if attempt.retry:
                self._indexes.setdefault(attempt.landing_key, set()).update(attempt.done)
        for owed in books.open_swept:
            if owed.landing_key in again:
                continue
            self._booked.setdefault(owed.landing_key, set()).update(_each(owed.rows))
        for paid in books.paid.values():
            if paid.landing_key in again:
                continue
            left = set(_each(paid.superseded))
            self._booked.setdefault(paid.landing_key, set()).update(set(_each(paid.rows)) - left)
            if left:
                self._left.setdefault(paid.landing_key, set()).update(left)
        self._of_whole = {made.landing_key for made in books.attempts if not made.retry}

    @property
    def whole(self) -> set[str]:
        """Objects of which all rows are seen to."""
        return self._of_whole - self._left.keys()

    def open_rows(self, landed: pa.Table, quiet: set[str]) -> pa.Table:
        """The rows of quiet objects that nobody has seen to, in whatever object they lie."""
        keys, places, indexes = (
            landed.column(name).to_pylist() for name in ("_object", "_row", "_index")
        )
        seen = pa.array(map(self._sees, keys, places, indexes), pa.bool_())
        still = pa.array([key in quiet for key in keys], pa.bool_())
        done = landed.filter(seen).select(ELEMENT)
        rows = landed.filter(pc.and_not(still, seen)).select([*ELEMENT, "_object", "_row"])
        return rows.join(done, ELEMENT, join_type="left anti").select(["_object", "_row"])

    def _sees(self, key: str, place: int, index: int) -> bool:
        if place in self._booked.get(key, ()):
            return True
        done = key in self._of_whole or index in self._indexes.get(key, ())
        return done and place not in self._left.get(key, ())


def _each(spans: Iterable[Span]) -> Iterator[int]:
    for low, high in spans:
        yield from range(low, high)
