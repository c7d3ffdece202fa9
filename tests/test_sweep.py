"""Hot rows that count and that nobody owes become debts, and no other rows do (law 6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from infra.doubles.dynamodb import DynamoDB
from infra.doubles.s3 import S3
from infra.doubles.sqs import Sqs
from infra.doubles.world import Calm
from infra.esm.simulated_queue import SimulatedQueue
from ingest.repair import pay
from ingest.sweep import KEPT_DAYS, QUIET_SECONDS, due, sweep
from sinks import control, ledger
from sinks.bucket import Bucket
from sinks.deadline import Deadline
from sinks.queue import Queue
from sinks.repair import DEBT_ROWS_MAX, Debt, Limits, debt_of
from sinks.table import Table
from tests.edge import HOT, Edge, rules
from tests.support import NOON, SECOND, SETTINGS, TOPOLOGY, Clock, Cloud, Context, reading

HOUR = 3_600.0
DAY = 24 * HOUR
TIGHTER = ("max = 125", "max = 20")  # under what `reading` says


@pytest.fixture
def edge() -> Iterator[Edge]:
    """A pipeline on doubles, which share its clock: here the age of objects matters."""
    clock = Clock(NOON / SECOND + 5)
    world = Calm(clock)
    s3 = S3(world, {TOPOLOGY.bucket: {}})
    dynamodb = DynamoDB(world, {table.name: {} for table in TOPOLOGY.tables})
    name = TOPOLOGY.repair_queue.name
    sqs = Sqs(world, {f"https://sqs/1/{name}": SimulatedQueue()})
    clients: tuple[Any, Any, Any] = (s3, dynamodb, sqs)
    account = Cloud(
        *clients,
        bucket=Bucket(clients[0], TOPOLOGY.bucket),
        hot=Table(clients[1], TOPOLOGY.hot_table.name),
        ledger=Table(clients[1], TOPOLOGY.ledger_table.name),
        repairs=Queue(clients[2], name),
    )
    return Edge(account, clock)


def stranded(edge: Edge, tmp_path: Any, *bodies: bytes) -> str:
    """Records that landed, and were settled as rejects by the rules deployed since."""
    key = edge.land(bodies)
    edge.deploy(rules(tmp_path, TIGHTER))
    edge.ingest(bodies)
    edge.clock.now += QUIET_SECONDS + 60
    return key


def queued(edge: Edge) -> list[Debt]:
    (queue,) = edge.account.sqs.queues.values()
    return [debt_of(held.body) for held in queue.messages]


def repaired(edge: Edge) -> list[str]:
    """Whose debts are still owed once the repair function has had all of them."""
    (queue,) = edge.account.sqs.queues.values()
    bodies = {held.identifier: held.body for held in queue.messages}
    queue.messages.clear()
    return pay(bodies, edge.wiring, Context())


def test_what_landed_and_was_settled_otherwise_is_owed_and_paid(edge: Edge, tmp_path) -> None:
    key = stranded(edge, tmp_path, reading(seq=1), b"no", reading(seq=2))
    assert edge.account.items() == {}
    report = sweep(edge.wiring)
    assert (report.debts, report.rows, report.left, report.objects) == (1, 2, 0, [key])
    (debt,) = queued(edge)
    assert (debt.landing_key, debt.rows, debt.records) == (key, ((0, 2),), ((0, 1), (2, 3)))
    assert repaired(edge) == []
    assert len(edge.account.items()) == 2


def test_what_is_owed_or_paid_is_not_owed_again(edge: Edge, tmp_path) -> None:
    stranded(edge, tmp_path, reading())
    sweep(edge.wiring)
    assert sweep(edge.wiring).debts == 0
    repaired(edge)
    assert ledger.books(edge.account.ledger).open_swept == []
    assert sweep(edge.wiring).debts == 0
    assert queued(edge) == []


def test_to_look_writes_nothing(edge: Edge, tmp_path) -> None:
    stranded(edge, tmp_path, reading())
    assert due(edge.wiring) == due(edge.wiring)
    assert len(due(edge.wiring)) == 1
    assert queued(edge) == []


def test_a_message_without_its_mark_is_sent_again_as_the_same_debt(edge: Edge, tmp_path) -> None:
    stranded(edge, tmp_path, reading())
    (debt,) = due(edge.wiring)
    edge.account.repairs.send_all([debt.message()], Deadline(9e9, edge.clock), edge.wiring.waiting)
    sweep(edge.wiring)
    assert [found.id for found in queued(edge)] == [debt.id] * 2
    assert repaired(edge) == []
    assert len(edge.account.items()) == 1


def test_what_its_source_will_bring_again_is_left_alone(edge: Edge) -> None:
    """Nobody has settled it: the next attempt may make it another item, or none."""
    edge.land([reading()])
    edge.clock.now += QUIET_SECONDS + 60
    assert sweep(edge.wiring).debts == 0
    edge.clock.now = NOON / SECOND + KEPT_DAYS * DAY - 60
    assert sweep(edge.wiring).debts == 0
    edge.clock.now += 120  # no source keeps it any more: it was parked, and its row counts
    assert sweep(edge.wiring).rows == 1


def test_what_an_attempt_may_still_be_at_is_left_alone(edge: Edge, tmp_path) -> None:
    stranded(edge, tmp_path, reading())
    edge.clock.now -= 120
    assert sweep(edge.wiring).debts == 0


def test_what_an_attempt_is_done_with_is_not_owed(edge: Edge) -> None:
    """An attempt that died, another that handed a record back, a third that did it."""
    bodies = [reading(seq=1), reading(seq=2)]
    edge.land(bodies)
    edge.ingest(bodies[:1])
    edge.ingest(bodies)
    edge.clock.now += DAY
    assert sweep(edge.wiring).debts == 0


def test_what_does_not_count_is_not_owed(edge: Edge, tmp_path) -> None:
    """A reprocess under other rules has set it aside since."""
    stranded(edge, tmp_path, reading())
    which = control.begin(edge.account.bucket, NOON, NOON + SECOND, "")
    edge.land([reading()], which.epoch)
    control.finish(edge.account.bucket, which)
    edge.clock.now += DAY
    assert sweep(edge.wiring).debts == 0


def test_what_the_table_would_expire_is_not_owed(edge: Edge, tmp_path) -> None:
    stranded(edge, tmp_path, reading())
    edge.clock.now += 30 * DAY
    assert sweep(edge.wiring).debts == 0


def test_a_reprocess_is_waited_for_and_what_it_leaves_is_owed(edge: Edge, tmp_path) -> None:
    """Repair leaves its rows to it; raw expires meanwhile, so that they count all the same."""
    stranded(edge, tmp_path, reading())
    sweep(edge.wiring)
    which = control.begin(edge.account.bucket, NOON, NOON + SECOND, "")
    assert repaired(edge) == []
    assert edge.account.items() == {}
    assert sweep(edge.wiring).debts == 0
    control.finish(edge.account.bucket, which)
    assert sweep(edge.wiring).rows == 1
    assert [debt.epoch for debt in queued(edge)] == [1]
    assert repaired(edge) == []
    assert len(edge.account.items()) == 1
    assert sweep(edge.wiring).debts == 0


def test_a_debt_of_an_attempt_that_was_left_to_a_reprocess_is_owed(edge: Edge) -> None:
    """Its raw expired: the reprocess never came to it."""
    refused = edge.wiring.hot_table
    edge.wiring.hot_table = Table(Nothing(), refused.name)  # type: ignore[arg-type]
    edge.wiring.settings = replace(SETTINGS, repair=Limits(1.0))
    edge.ingest([reading()])
    edge.wiring.hot_table = refused
    which = control.begin(edge.account.bucket, NOON, NOON + SECOND, "")
    assert repaired(edge) == []
    control.finish(edge.account.bucket, which)
    edge.clock.now += DAY
    assert sweep(edge.wiring).rows == 1
    assert repaired(edge) == []
    assert len(edge.account.items()) == 1


def test_half_of_the_queue_is_left_to_what_is_refused_meanwhile(edge: Edge, tmp_path) -> None:
    stranded(edge, tmp_path, reading(), reading(seq=1, **HOT))
    edge.wiring.settings = replace(SETTINGS, repair=Limits(rows_max=DEBT_ROWS_MAX))
    report = sweep(edge.wiring)
    assert (report.debts, report.left) == (1, 1)
    assert queued(edge) == []
    edge.wiring.settings = replace(SETTINGS, repair=Limits(rows_max=2 * DEBT_ROWS_MAX))
    assert sweep(edge.wiring).left == 0


class Nothing:
    """A DynamoDB client that takes no item."""

    def batch_write_item(self, RequestItems: dict[str, Any]) -> Any:  # noqa: N803  as boto3
        return {"UnprocessedItems": RequestItems}
