"""`verify` proves a whole state, and names what is deleted, doubled, forged or unexplained."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from infra.evidence import HELD, Held, Stores
from infra.parked import NOTHING, Parked, Pointer, dead_letters, digest
from infra.verify import Report, verify
from ingest.process import process
from ingest.stages import transform, write_hot
from sinks import landing, ledger, parquet, raw
from sinks.deadline import Deadline
from sinks.ledger import Paid
from sinks.table import Table
from tests.support import (
    NOON,
    SECOND,
    TOPOLOGY,
    Clock,
    Cloud,
    Context,
    InProcessWorkflow,
    delivery,
    reading,
)
from transform.contract_file import load_contract
from transform.kpl import aggregate
from transform.records import Delivery

TELEMETRY = load_contract("telemetry")
SHARD = "shardId-000000000000"
KILLER = b"kills whoever opens it"
STREAM, QUEUE = "fleet", "fleet-queue"


class State:
    """A mocked account, ingest run on it in this process, and sources that say what we tell."""

    def __init__(self, made: Cloud) -> None:
        self.cloud = made
        self.wiring = made.wiring(Clock())
        stages = {
            TOPOLOGY.transform.name: self._transform,
            TOPOLOGY.hot.name: lambda state, at: write_hot(state, self.wiring, at),
        }
        self.wiring.workflow = InProcessWorkflow(TOPOLOGY, stages, made.dynamodb)
        self.held = Held(passed={(STREAM, SHARD): 10**30})
        self.parked: Parked = NOTHING
        self.now = NOON

    def _transform(self, state: dict[str, Any], context: Any) -> dict[str, Any]:
        bodies = raw.read(self.cloud.bucket, state["raw_key"]).column("_body").to_pylist()
        part = bodies[state["first"] : state["first"] + state["received"]]
        if KILLER in part and not state.get("unread"):
            raise MemoryError
        return transform(state, self.wiring, context)

    def deliver(self, *bodies: bytes, first: int = 100, **more: Any) -> Delivery:
        """One attempt at a Delivery of these bodies, at the positions from `first` on."""
        given = delivery(bodies, stream=STREAM)
        sequences = [str(first + number) for number in range(len(bodies))]
        given = dataclasses.replace(given, **{"sequences": sequences, **more})
        process(given, self.wiring, Context(180_000))
        return given

    def message(self, body: bytes, name: str, arrival: int = NOON) -> Delivery:
        return self.deliver(
            body,
            source="sqs",
            stream=QUEUE,
            shards=[""],
            sequences=[name],
            arrivals=[arrival],
        )

    def verify(self) -> Report:
        return verify(self.stores())

    def stores(self) -> Stores:
        return Stores(
            bucket=self.cloud.bucket,
            ledger=self.cloud.ledger,
            hot={"telemetry": self.cloud.hot},
            contracts=[TELEMETRY],
            now_micros=self.now,
            parked=self.parked,
            held=self.held,
        )

    def delete(self, key: str) -> None:
        self.cloud.s3.delete_object(Bucket=self.cloud.bucket.name, Key=key)

    def key(self, prefix: str) -> str:
        return self.cloud.keys(f"{prefix}/")[0]

    def rewrite(self, key: str, change: Callable[[pa.Table], pa.Table]) -> str:
        """Replace an object by one of a name as good as its own."""
        data = parquet.encode(change(parquet.decode(self.cloud.bucket.get(key))))
        self.delete(key)
        fresh = f"{key.rpartition('/')[0]}/{hashlib.sha256(data).hexdigest()}.parquet"
        self.cloud.bucket.put(fresh, data)
        return fresh

    def attempts(self) -> list[dict[str, Any]]:
        return list(self.cloud.ledger.scan())

    def edit(self, item: dict[str, Any], **values: int) -> None:
        item |= {name: {"N": str(value)} for name, value in values.items()}
        self.cloud.dynamodb.put_item(TableName=self.cloud.ledger.name, Item=item)


@pytest.fixture
def state(account: Cloud) -> State:
    return State(account)


@pytest.fixture
def full(state: State) -> State:
    """Records by each way, good, bad, repeated, delivered again with other batch edges."""
    whole = aggregate([("a", reading(seq=10)), ("b", b"{"), ("c", reading(seq=11))])
    bodies = [reading(seq=1), b"no", reading(seq=2), reading(seq=1), whole]
    state.deliver(*bodies)
    state.deliver(*bodies[2:], reading(seq=3), first=102)
    state.message(reading(seq=4), "m-1")
    return state


def found(report: Report) -> set[tuple[str, str, str]]:
    return {(f.kind, f.check, f.name) for f in report.findings}


def checks(report: Report) -> set[tuple[str, str]]:
    return {(f.kind, f.check) for f in report.findings}


# ---- Proven ----


def test_a_whole_state_is_proven(full: State):
    report = full.verify()
    assert report.findings == ()
    assert report.proven
    assert report.fates == {
        "delivered": 5,
        "quarantined": 2,
        "dropped": 0,
        "erased": 0,
        "parked": 0,
        "redriven": 0,
        "waiting": 0,
        "missing": 0,
    }
    assert report.counts["positions"] == 7
    assert report.counts["elements"] == 9
    assert report.counts["repeats"] == 1
    assert report.counts["attempts"] == 3
    assert report.counts["hot_items"] == 6
    assert "7 positions in 3 raw objects, 9 elements" in report.scope[0]
    json.dumps(report.to_json())


def test_an_empty_state_is_proven(state: State):
    assert state.verify().proven


# ---- Deleted ----


def rows_of(state: State, key: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = landing.read(state.cloud.bucket, key).to_pylist()
    return rows


def test_a_deleted_landing_object(full: State):
    key = full.cloud.keys("landing/")[0]
    full.delete(key)
    report = full.verify()
    assert ("unexplained", "landing_object", key) in found(report)
    assert not report.proven


def test_every_deleted_landing_object_is_missed_by_its_records(state: State):
    state.deliver(reading(seq=1), reading(seq=2), b"no")
    key = state.key("landing")
    state.delete(key)
    report = state.verify()
    assert {
        ("missing", "record", f"{STREAM}/{SHARD}/100"),
        ("missing", "record", f"{STREAM}/{SHARD}/101"),
        ("unexplained", "landing_object", key),
    } <= found(report)
    assert ("missing", "record", f"{STREAM}/{SHARD}/102") not in found(report)
    assert report.fates["missing"] == 2
    assert {f.detail for f in report.findings if f.check == "landing_object"} == {
        "attempt arn:aws:states:us-east-1:0:express:batch:1 wrote 2 rows there; there is no such "
        "object"
    }


def test_a_deleted_quarantine_object(state: State):
    state.deliver(reading(seq=1), b"no")
    key = state.key("quarantine")
    state.delete(key)
    assert found(state.verify()) == {
        ("missing", "record", f"{STREAM}/{SHARD}/101"),
        ("unexplained", "quarantine_object", key),
    }


def test_what_an_object_explains_comes_right_behind_it(state: State):
    """Each record under the object that had it, those that nothing explains at the end."""
    state.deliver(reading(seq=1), b"no", reading(seq=2))
    state.deliver(reading(seq=3), first=200)
    [lost, kept] = sorted(state.cloud.keys("landing/"), key=lambda key: len(rows_of(state, key)))
    state.rewrite(kept, lambda table: table.slice(1))
    keys = [lost, kept, state.key("quarantine")]
    for key in keys[::2]:
        state.delete(key)
    findings = state.verify().findings
    under = {key: [f.name.rpartition("/")[2] for f in findings if f.cause == key] for key in keys}
    assert under == {lost: ["200"], kept: ["100"], keys[2]: ["101"]}
    first = [(f.name, f.cause) for f in findings[:6]]
    for place, (name, cause) in enumerate(first):
        assert name in keys if not cause else first[place - 1] == (cause, "")
    assert not any(f.cause for f in findings[6:])


@pytest.mark.parametrize("prefix", ["quarantine", "landing"])
def test_a_deleted_row(state: State, prefix: str):
    state.deliver(reading(seq=1), b"no", b"none", reading(seq=2))
    key = state.key(prefix)
    state.rewrite(key, lambda table: table.slice(1))
    report = state.verify()
    gone = "101" if prefix == "quarantine" else "100"
    assert ("missing", "record", f"{STREAM}/{SHARD}/{gone}") in found(report)
    assert ("unexplained", f"{prefix}_object", key) in found(report)


def test_a_row_deleted_under_the_same_name(state: State):
    state.deliver(reading(seq=1), b"no", b"none")
    key = state.key("quarantine")
    data = parquet.encode(landing.read(state.cloud.bucket, key).slice(1))
    state.cloud.bucket.put(key, data)
    assert {
        ("missing", "record", f"{STREAM}/{SHARD}/101"),
        ("unexplained", "object", key),
        ("unexplained", "quarantine_object", key),
    } <= found(state.verify())


def test_a_deleted_row_of_an_aggregate(state: State):
    state.deliver(aggregate([("a", reading(seq=1)), ("b", reading(seq=2))]))
    state.rewrite(state.key("landing"), lambda table: table.slice(1))
    assert ("missing", "element", f"{STREAM}/{SHARD}/100") in found(state.verify())


def test_a_deleted_ledger_item(full: State):
    item = next(item for item in full.attempts() if item["stream"]["S"] == QUEUE)
    keys = {name: item[name] for name in ("pk", "sk")}
    full.cloud.dynamodb.delete_item(TableName=full.cloud.ledger.name, Key=keys)
    report = full.verify()
    assert found(report) == {("unexplained", "ledger", item["raw_key"]["S"])}
    [finding] = report.findings
    assert f"the first {QUEUE}//m-1" in finding.detail
    assert item["landing_key"]["S"] in finding.detail


def test_a_deleted_raw_object(state: State):
    state.deliver(reading(seq=1), b"no")
    key = state.key("raw")
    state.delete(key)
    report = state.verify()
    assert ("unexplained", "raw_object", key) in found(report)
    assert {
        ("unexplained", "origin", state.key("landing")),
        ("unexplained", "origin", state.key("quarantine")),
    } <= found(report)


def test_a_deleted_hot_item(full: State):
    pk, sk = min(full.cloud.items())
    key = {"pk": {"S": pk}, "sk": {"S": sk}}
    full.cloud.dynamodb.delete_item(TableName=full.cloud.hot.name, Key=key)
    assert found(full.verify()) == {("missing", "hot_item", f"{pk} {sk}")}


def test_an_item_past_its_ttl_need_not_be_there(full: State):
    assert TELEMETRY.hot_ttl_seconds
    for pk, sk in full.cloud.items():
        key = {"pk": {"S": pk}, "sk": {"S": sk}}
        full.cloud.dynamodb.delete_item(TableName=full.cloud.hot.name, Key=key)
    full.now = NOON + (TELEMETRY.hot_ttl_seconds + 1) * SECOND
    assert full.verify().proven


# ---- Doubled, in conflict, forged ----


def test_a_hot_item_that_no_record_wants(full: State):
    item = {"pk": {"S": "ghost#2026-11-24"}, "sk": {"S": "2026"}}
    full.cloud.dynamodb.put_item(TableName=full.cloud.hot.name, Item=item)
    assert found(full.verify()) == {("unexplained", "hot_item", "ghost#2026-11-24 2026")}


def test_equal_ids_of_other_bytes_are_a_conflict(state: State):
    state.deliver(reading(seq=1), reading(seq=1, note="other"))
    report = state.verify()
    assert found(report) == {("conflict", "record_id", "sensor-1/2026-11-24T12:00:00.000000Z/1")}
    assert f"{STREAM}/{SHARD}/100, {STREAM}/{SHARD}/101" in report.findings[0].detail


def test_other_bytes_under_one_position(state: State):
    state.deliver(reading(seq=1))
    state.deliver(reading(seq=2))
    assert ("conflict", "bytes", f"{STREAM}/{SHARD}/100") in found(state.verify())


def test_an_element_both_delivered_and_set_aside(state: State):
    state.deliver(reading(seq=1), b"no")

    def forged(table: pa.Table) -> pa.Table:
        rows = landing.read(state.cloud.bucket, state.key("landing"))
        for name in ("_index", "_sequence", "_digest"):
            at = table.column_names.index(name)
            table = table.set_column(at, table.schema.field(name), rows.column(name))
        return table

    state.rewrite(state.key("quarantine"), forged)
    assert {
        ("twice", "verdicts", f"{STREAM}/{SHARD}/100"),
        ("unexplained", "verdict", f"{STREAM}/{SHARD}/100"),
    } <= found(state.verify())


def test_a_row_twice_in_an_object(state: State):
    state.deliver(reading(seq=1))
    key = state.rewrite(state.key("landing"), lambda table: pa.concat_tables([table, table]))
    assert ("twice", "rows", key) in found(state.verify())


def test_a_verdict_that_the_rules_do_not_give(state: State):
    state.deliver(b"no")

    def forged(table: pa.Table) -> pa.Table:
        reason = pa.array(["not_utf8"], pa.string())
        at = table.column_names.index("_reason")
        return table.set_column(at, table.schema.field("_reason"), reason)

    key = state.rewrite(state.key("quarantine"), forged)
    [finding] = [f for f in state.verify().findings if f.check == "verdict"]
    assert finding.name == f"{STREAM}/{SHARD}/100"
    assert finding.detail == (f"element 0/0 is not_utf8 in {key}, its rules say malformed_json")


def test_rows_of_rules_that_are_not_here_are_told(state: State):
    state.deliver(reading(seq=1))

    def renamed(table: pa.Table) -> pa.Table:
        at = table.column_names.index("_generation")
        return table.set_column(at, table.schema.field("_generation"), pa.array(["other"]))

    state.rewrite(state.key("landing"), renamed)
    report = state.verify()
    assert any("generations other" in text for text in report.unchecked)
    assert not any(f.check == "verdict" for f in report.findings)


@pytest.mark.parametrize(
    ("values", "check"),
    [
        ({"delivered": 3, "received": 3}, "counts"),
        ({"delivered": 1, "quarantined": 1}, "counts"),
        ({"landing_rows": 3}, "landing_object"),
        ({"landing_bytes": 3}, "landing_object"),
        ({"hot_written": 1}, "hot_counts"),
        ({"received": 9}, "raw_object"),
    ],
)
def test_a_ledger_that_disagrees(state: State, values, check):
    state.deliver(reading(seq=1), reading(seq=2))
    state.edit(state.attempts()[0], **values)
    assert ("unexplained", check) in checks(state.verify())


# ---- Waiting, parked, redriven ----


def test_what_lies_behind_the_checkpoint_waits(state: State):
    state.deliver(reading(seq=1), reading(seq=2))
    item = state.attempts()[0]
    item |= {"retry": {"S": "[[1, 2]]"}, "outcome": {"S": "retry"}}
    state.edit(item, delivered=1)
    state.held = Held(passed={(STREAM, SHARD): 100})
    report = state.verify()
    assert report.proven
    state.held = Held(passed={(STREAM, SHARD): 101})
    assert ("unexplained", "ledger", state.key("raw")) in found(state.verify())


def test_a_record_that_was_never_tried_waits_until_it_is_passed(state: State):
    state.wiring.workflow.down = True
    state.deliver(reading(seq=1))
    state.held = Held()
    report = state.verify()
    assert (report.proven, report.fates["waiting"]) == (True, 1)
    assert any("1 positions wait" in text for text in report.unchecked)
    state.held = Held(passed={(STREAM, SHARD): 99})
    assert state.verify().fates["waiting"] == 1
    state.held = Held(passed={(STREAM, SHARD): 100})
    assert found(state.verify()) == {("missing", "record", f"{STREAM}/{SHARD}/100")}


def test_a_message_waits_while_its_queue_holds_one(state: State):
    state.wiring.workflow.down = True
    state.message(reading(seq=1), "m-1")
    state.held = Held(waiting={QUEUE: 1})
    assert state.verify().fates["waiting"] == 1
    state.held = Held(waiting={QUEUE: 0})
    assert found(state.verify()) == {("missing", "record", f"{QUEUE}//m-1")}


def letter(body: bytes, name: str) -> dict[str, Any]:
    return {
        "MessageId": name,
        "ReceiptHandle": "r",
        "Body": body.decode(),
        "Attributes": {"SentTimestamp": str(NOON // 1_000)},
    }


def test_a_dead_letter_is_parked_under_its_id_or_by_its_body(state: State):
    state.wiring.workflow.down = True
    state.message(reading(seq=1), "m-1")
    state.parked = dead_letters(QUEUE, [letter(reading(seq=1), "m-1")])
    assert state.verify().fates["parked"] == 1
    state.parked = dead_letters(QUEUE, [letter(reading(seq=1), "m-9")])
    report = state.verify()
    assert (report.proven, report.fates["parked"]) == (True, 2)
    state.parked = dead_letters(QUEUE, [letter(reading(seq=2), "m-9")])
    assert found(state.verify()) == {("missing", "record", f"{QUEUE}//m-1")}


def test_a_message_that_was_moved_back_is_recognised_by_its_body(state: State):
    state.wiring.workflow.down = True
    state.message(reading(seq=1), "m-1")
    state.wiring.workflow.down = False
    state.message(reading(seq=1), "m-2", NOON + SECOND)
    report = state.verify()
    assert (report.proven, report.fates["redriven"], report.fates["delivered"]) == (True, 1, 1)


def test_a_message_reported_as_done_is_not_excused_by_another_of_its_body(state: State):
    state.message(reading(seq=1), "m-1")
    state.delete(state.key("landing"))
    state.message(reading(seq=1), "m-2", NOON + SECOND)
    assert ("missing", "record", f"{QUEUE}//m-1") in found(state.verify())


def test_delivered_counts_before_parked(state: State):
    state.message(reading(seq=1), "m-1")
    state.parked = dead_letters(QUEUE, [letter(reading(seq=1), "m-1")])
    report = state.verify()
    assert (report.proven, report.fates["delivered"], report.fates["parked"]) == (True, 1, 0)


def test_an_unreadable_on_failure_object(state: State):
    state.parked = Parked(NOTHING.rows, unreadable=("on-failure/x",))
    assert found(state.verify()) == {("unexplained", "on_failure", "on-failure/x")}


# ---- Owed, and set aside unread ----


class Refusing:
    """A DynamoDB client that takes no item of one device."""

    def __init__(self, real: Any, device: str) -> None:
        self.real, self.device = real, device

    def batch_write_item(self, RequestItems: dict[str, Any]) -> Any:  # noqa: N803
        ((name, puts),) = RequestItems.items()
        left = [p for p in puts if p["PutRequest"]["Item"]["device_id"]["S"] == self.device]
        if taken := [put for put in puts if put not in left]:
            self.real.batch_write_item(RequestItems={name: taken})
        return {"UnprocessedItems": {name: left} if left else {}}


def owing(state: State) -> tuple[str, str]:
    """Deliver ten readings, of which the hot table owes one; returns its key."""
    hot = state.cloud.hot
    state.wiring.hot_table = Table(Refusing(hot.client, "busy"), hot.name)
    state.deliver(*(reading(seq=n) for n in range(9)), reading("busy"))
    state.wiring.hot_table = hot
    return "busy#2026-11-24", next(iter(ledger.debts(state.cloud.ledger)[0]))


def paid(state: State, debt: str) -> None:
    mark = Paid(debt, state.key("landing"), ((9, 10),), "2026-11-24T12:00:00Z")
    clock = Clock()
    ledger.mark_paid(state.cloud.ledger, [mark], Deadline(clock() + 9, clock), clock.waiting())


def test_an_open_debt_explains_the_hot_item_it_owes(state: State):
    owing(state)
    report = state.verify()
    assert (report.proven, report.counts["owed_rows"]) == (True, 1)
    assert any("1 hot items are owed by repair" in text for text in report.unchecked)


def test_a_paid_debt_explains_nothing(state: State):
    pk, debt = owing(state)
    paid(state, debt)
    [finding] = state.verify().findings
    assert (finding.kind, finding.check, finding.name.split()[0]) == ("missing", "hot_item", pk)


def test_a_debt_explains_no_more_items_than_it_owes(state: State):
    owing(state)
    pk, sk = max(state.cloud.items())
    key = {"pk": {"S": pk}, "sk": {"S": sk}}
    state.cloud.dynamodb.delete_item(TableName=state.cloud.hot.name, Key=key)
    assert ("missing", "hot_item", f"{pk} {sk}") in found(state.verify())


def test_a_killer_is_set_aside_and_its_parts_are_accounted(state: State):
    state.deliver(*(reading(seq=n) for n in range(9)), KILLER)
    report = state.verify()
    assert report.findings == ()
    assert (report.fates["delivered"], report.fates["quarantined"]) == (9, 1)
    assert "1 rows were set aside unread: no rules were applied to them" in report.unchecked
    state.delete(state.key("quarantine"))
    assert ("missing", "record", f"{STREAM}/{SHARD}/109") in found(state.verify())


# ---- The stream, read again ----


def held(*records: tuple[str, bytes], passed: int = 10**30) -> Held:
    rows = [
        {"_stream": STREAM, "_shard": SHARD, "_sequence": name, "_sha": digest(body)}
        for name, body in records
    ]
    return Held(pa.Table.from_pylist(rows, HELD), {(STREAM, SHARD): passed})


def test_what_the_stream_has_must_be_somewhere(state: State):
    state.deliver(reading(seq=1))
    state.held = held(("100", reading(seq=1)), ("101", reading(seq=2)))
    assert found(state.verify()) == {("missing", "archive", f"{STREAM}/{SHARD}/101")}
    state.parked = Parked(NOTHING.rows, (Pointer(STREAM, SHARD, 101, 105, 5, "on-failure/a"),))
    assert state.verify().proven


def test_the_stream_has_other_bytes(state: State):
    state.deliver(reading(seq=1))
    state.held = held(("100", reading(seq=2)))
    assert found(state.verify()) == {("conflict", "bytes", f"{STREAM}/{SHARD}/100")}
