"""What the repair function does with debts: the rows they point at become hot items, then a mark.

A debt is paid when all of its items are acknowledged and its mark is in the ledger. One that is not
is handed back and comes again when the queue's visibility is over, which is the pace of repair.
Paying twice writes the same items and the same mark.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ingest import log, telemetry
from ingest.events import malformed, records_of, text
from ingest.settings import Context, Wiring
from sinks import control, hot, landing, ledger
from sinks.control import Reprocessed
from sinks.deadline import Deadline
from sinks.errors import Gone, SinkError
from sinks.ledger import Paid
from sinks.repair import Debt, DebtError, debt_of, spans
from sinks.table import Key
from transform.contract import Contract
from transform.contract_file import ContractError
from transform.tables import MICROS, hot_mask

ANSWER_SECONDS = 6.0  # kept back to answer: a call begun just before may take 5 of them
MARK_SECONDS = 8.0  # kept back of the rest for the marks: without one the items are put again


@dataclass(frozen=True)
class Due:
    """A debt with the puts it still asks for, and how many of its rows ask for none.

    `superseded` are the places of those that a reprocess was to make again.
    """

    debt: Debt
    puts: Mapping[Key, bytes]
    latest: bool
    skipped: int
    superseded: tuple[int, ...]


def read(event: Any) -> dict[str, str]:
    """The bodies of an SQS event by message id. Raises `EventError` for what no mapping sends."""
    bodies: dict[str, str] = {}
    for number, record in enumerate(records_of(event, "aws:sqs")):
        try:
            bodies[text(record["messageId"])] = text(record["body"])
        except (KeyError, TypeError) as error:
            raise malformed(number, error) from None
    return bodies


def respond(failed: Iterable[str]) -> dict[str, Any]:
    """The answer: the messages whose debts are not paid, and no other."""
    return {"batchItemFailures": [{"itemIdentifier": message} for message in failed]}


def pay(bodies: Mapping[str, str], wiring: Wiring, context: Context) -> list[str]:
    """Pay the debts in these messages; returns the messages whose debts are still owed.

    What is no debt, or points at nothing, is handed back as well: it is an operator's to judge,
    and the queue keeps it until then.
    """
    started = time.perf_counter()
    deadline = wiring.deadline(context, ANSWER_SECONDS)
    due: dict[str, Due] = {}
    paid: set[str] = set()
    failure = ""
    try:
        redone = control.reprocessed(wiring.bucket)
        for message, body in bodies.items():
            try:
                due[message] = _due(debt_of(body), wiring, redone, deadline)
            except (DebtError, ContractError) as error:
                failure = str(error)
                log.exception("debt cannot be paid", message_id=message, error=failure)
            except SinkError as error:  # the others may have more luck
                failure = str(error)
        paid = _pay(due.values(), wiring, deadline)
    except SinkError as error:
        failure = str(error)
        log.warning("debts handed back", reason=error.reason, error=failure)
    done = [message for message, each in due.items() if each.debt.id in paid]
    telemetry.repaired(
        telemetry.Repaired(
            debts=len(bodies),
            paid=len(done),
            rows=sum(len(due[message].debt.places) - due[message].skipped for message in done),
            skipped=sum(due[message].skipped for message in done),
            millis=round((time.perf_counter() - started) * 1000, 1),
        ),
        failure,
    )
    return [message for message in bodies if message not in done]


def _pay(due: Collection[Due], wiring: Wiring, deadline: Deadline) -> set[str]:
    """Make the puts of all debts, then the marks of those that are whole; returns their ids."""
    until = deadline.sooner(min(MARK_SECONDS, max(deadline.left, 0) / 4))
    undone: set[Key] = set()
    for latest in {each.latest for each in due}:
        puts = {k: put for each in due if each.latest is latest for k, put in each.puts.items()}
        left = wiring.hot_table.put_each(
            len(puts), puts.values(), until, wiring.waiting, newest=latest
        )
        undone |= {key for place, key in enumerate(puts) if place in left}
    now = datetime.fromtimestamp(wiring.clock(), UTC).isoformat(timespec="milliseconds")
    marks = [
        Paid(
            debt=each.debt.id,
            landing_key=each.debt.landing_key,
            rows=each.debt.rows,
            paid_at=now.replace("+00:00", "Z"),
            superseded=spans(each.superseded),
        )
        for each in due
        if undone.isdisjoint(each.puts)
    ]
    unmarked = ledger.mark_paid(wiring.ledger_table, marks, deadline, wiring.waiting)
    return {mark.debt for mark in marks} - unmarked


def _due(debt: Debt, wiring: Wiring, redone: list[Reprocessed], deadline: Deadline) -> Due:
    """What a debt asks for now. Raises `DebtError` where it points at nothing."""
    deadline.check(f"pay {debt.id}")
    try:
        landed = landing.open_(wiring.bucket, debt.landing_key)
        own = wiring.contract
        contract = wiring.contracts.behind(wiring.bucket, landed, own)
    except Gone as error:
        raise DebtError(f"debt {debt.id} of {debt.landing_key}: {error}") from error
    rows = landed.rows([*hot.columns_of(contract, landed.names), "_epoch"])
    if debt.places[-1] >= rows.num_rows:
        raise DebtError(f"debt {debt.id}: {debt.landing_key} has only {rows.num_rows} rows")
    rows = rows.take(pa.array(debt.places, pa.int64()))
    later = [span for span in redone if span.epoch > debt.epoch]
    gone = superseded(rows, later)
    wanted = rows.filter(pc.and_not(living(rows, contract, wiring.clock()), gone))
    places = pa.array(debt.places).filter(gone).to_pylist()
    return Due(
        debt,
        hot.Wanted.of(wanted, contract).by_key(),
        contract.latest,
        rows.num_rows - wanted.num_rows,
        tuple(places),
    )


def living(rows: pa.Table, contract: Contract, now: float) -> pa.ChunkedArray:
    """Which rows have a hot item that the table would not expire at once."""
    wanted = hot_mask(rows, contract)
    if contract.hot_ttl_seconds is not None:
        born = int(now * MICROS) - contract.hot_ttl_seconds * MICROS
        moments = rows.column(contract.event_time).cast(pa.int64())
        wanted = pc.and_(wanted, pc.greater(moments, born))
    return wanted


def superseded(rows: pa.Table, redone: Iterable[Reprocessed]) -> pa.ChunkedArray:
    """Which rows these reprocesses have made again, or will.

    Their items may have other keys now, and those of these rows would stay beside them.
    """
    arrivals = rows.column("_arrival").cast(pa.int64())
    gone = pc.less(arrivals, 0)
    for span in redone:
        inside = pc.and_(
            pc.greater_equal(arrivals, span.from_micros), pc.less(arrivals, span.to_micros)
        )
        gone = pc.or_(gone, pc.and_(inside, pc.less(rows.column("_epoch"), span.epoch)))
    return gone
