"""The laws of ARCHITECTURE.md that exist so far, each by name, on the whole path in one process.

A shard is read as an event source mapping reads it: what is handed back comes again, with moved
batch edges, while the bucket, the table and the workflow fail at random.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest import kinesis, repair, sqs
from ingest.process import process
from ingest.settings import Wiring
from ingest.stages import transform, write_hot
from ingest.workflow import ExecutionFailed
from sinks import distinct, hot, landing, ledger
from sinks.bucket import Bucket
from sinks.errors import Unavailable
from sinks.table import Table
from tests.support import (
    NOON,
    SECOND,
    TOPOLOGY,
    Clock,
    Cloud,
    Context,
    InProcessWorkflow,
    cloud,
    delivery,
    reading,
)
from transform.contract_file import load_contract
from transform.kpl import aggregate
from transform.pipeline import Transform
from transform.records import (
    DROPPED_SCHEMA,
    QUARANTINE_SCHEMA,
    ConservationError,
    Delivery,
    Outcome,
)

TABLES = distinct.Tables("rows", "rejects", "drops")
CONTRACT = load_contract("telemetry")
ATTEMPTS_MAX = 60  # of one shard: with the faults below it drains in a few
FAULTS = ("archive", "died before", "died after", "refused", "ledger")


def test_law_1_conservation_received_is_delivered_dropped_quarantined_or_retry() -> None:
    for wrong in (
        lambda: Outcome(3, 1, 0, 1, ()),
        lambda: Outcome(3, 1, 0, 1, ((0, 2),)),
        lambda: Outcome(2, 3, 0, -1, ()),
        lambda: Outcome(2, 0, 0, 0, ((0, 1), (0, 1))),
    ):
        with pytest.raises(ConservationError):
            wrong()
    assert Outcome(3, 1, 0, 1, ((2, 3),)).retried == 1


def test_law_2_poison_moves_on_and_weather_waits() -> None:
    with cloud() as account:
        path = Path(account, random.Random(0))
        path.faults = ["archive"]
        assert path.attempt(shard([b"poison", reading()])).retried == 2  # weather
        path.faults = []
        outcome = path.attempt(shard([b"poison", reading()]))
        assert (outcome.quarantined, outcome.delivered, outcome.retried) == (1, 1, 0)
        (key,) = account.keys("quarantine/")
        assert landing.read(account.bucket, key).column("_body").to_pylist() == [b"poison"]


@pytest.mark.parametrize(
    ("retry", "answer"),
    [
        ((), []),
        (((1, 2), (3, 4)), ["9"]),  # as text "10" would come before "9"
        (((2, 4),), ["10"]),
    ],
)
def test_law_3_answers_are_exact(retry: tuple[tuple[int, int], ...], answer: list[str]) -> None:
    numbered = replace(delivery([b""] * 4), sequences=["8", "9", "10", "11"])
    back = sum(high - low for low, high in retry)
    outcome = Outcome(4, 4 - back, 0, 0, retry)
    told = kinesis.respond(numbered, outcome)["batchItemFailures"]
    assert [failure["itemIdentifier"] for failure in told] == answer
    each = sqs.respond(replace(numbered, source="sqs"), outcome)["batchItemFailures"]
    assert [failure["itemIdentifier"] for failure in each] == [
        numbered.sequences[index] for index in outcome.retry_indexes()
    ]


def test_law_4_objects_are_named_by_their_bytes_and_never_overwritten() -> None:
    with cloud() as account:
        first = account.bucket.put_once("landing/x", NOON, b"rows")
        assert account.bucket.put_once("landing/x", NOON, b"rows") == first
        assert account.bucket.put_once("landing/x", NOON, b"more rows") != first
        assert account.bucket.get(first) == b"rows"


def test_law_5_one_position_has_one_fate_whatever_was_deployed_between() -> None:
    """A reject of the old contract is delivered by the new one, and counted there alone."""
    body = reading(readings={"temperature": 200})
    wider = replace(
        CONTRACT,
        version=2,
        fields=tuple(
            replace(f, maximum=500.0) if f.name == "temperature" else f for f in CONTRACT.fields
        ),
    )
    raw = delivery([body]).table()
    batches = [Transform(rules).apply(raw, "raw/1") for rules in (CONTRACT, wider, CONTRACT)]
    rows = pa.concat_tables([batch.rows for batch in batches])
    rejects = pa.concat_tables([batch.rejects for batch in batches])
    assert (rows.num_rows, rejects.num_rows) == (1, 2)
    assert count(TABLES.records(), rows, rejects) == 1
    assert count(TABLES.set_aside(), rows, rejects) == 0


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32))
def test_laws_1_5_and_6_whatever_fails_and_however_batches_move(seed: int) -> None:
    """Every record ends in one place, once; and hot holds what landing says."""
    rng = random.Random(seed)
    with cloud() as account:
        path = Path(account, rng)
        records = [message(rng, number) for number in range(rng.randrange(1, 25))]
        path.drain(shard([body for body, *_ in records]))
        rows, rejects = path.landed(), path.rejected()
        good = sum(good for _, good, _ in records)
        assert count(TABLES.delivered(), rows, rejects) == good
        bad = sum(bad for _, _, bad in records)
        assert count(TABLES.set_aside(), rows, rejects) == bad
        kept = select(TABLES.records(), rows, rejects)
        assert set(account.items()) == set(hot.keys_of(kept, CONTRACT))
        done = Counter(attempt.outcome for attempt in ledger.attempts(account.ledger))
        assert done["done"] >= 1


def test_law_7_nothing_is_begun_after_the_deadline() -> None:
    with cloud() as account:
        path = Path(account, random.Random(0))
        outcome = path.attempt(shard([reading()]), Context(remaining_ms=0))
        assert outcome == Outcome.all_retry(1)
        assert account.keys() == []
        assert account.items() == {}


def test_law_10_waiting_cannot_starve_working() -> None:
    with pytest.raises(ValueError, match="each stage must reserve twice that"):
        replace(TOPOLOGY, hot=replace(TOPOLOGY.hot, reserved_concurrency=1))


def test_law_13_what_a_delivery_costs_does_not_depend_on_its_size() -> None:
    with cloud() as account:
        path = Path(account, random.Random(0))
        path.attempt(shard([reading(seq=n) for n in range(300)]))
        assert len(account.keys()) == 3  # raw and landing, and once a process the contract
        assert len(list(ledger.attempts(account.ledger))) == 1
        assert len(path.workflow.inputs) == 1


# The path, with faults


def message(rng: random.Random, number: int) -> tuple[bytes, int, int]:
    """A source record's bytes, and how many good and bad messages it holds."""
    kind = rng.choice(("good", "repeat", "bad", "aggregate"))
    if kind == "bad":
        return b"no" * (number + 1), 0, 1
    if kind == "aggregate":
        good, bad = rng.randrange(1, 4), rng.randrange(3)
        members = [reading("hub", seq=10 * number + n) for n in range(good)] + [b"no"] * bad
        return aggregate([("k", member) for member in members]), good, bad
    return reading(f"s-{number % 3}", seq=0 if kind == "repeat" else number), 1, 0


def shard(bodies: list[bytes]) -> Delivery:
    """All there is in a shard, as one Delivery to cut batches from."""
    whole = delivery(bodies)
    return replace(whole, arrivals=[NOON + n * SECOND for n in range(len(bodies))])


@dataclass
class Path:
    """Ingest, workflow and sinks in one process, on a mocked account that can be told to fail."""

    account: Cloud
    rng: random.Random
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.wiring: Wiring = self.account.wiring(self.clock)
        self.wiring.bucket = FailingBucket(self.account.bucket, self)
        self.wiring.hot_table = FailingTable(self.account.hot, self)
        self.workflow = FailingWorkflow(
            TOPOLOGY,
            {
                TOPOLOGY.transform.name: lambda state, at: transform(state, self.wiring, at),
                TOPOLOGY.hot.name: lambda state, at: write_hot(state, self.wiring, at),
            },
            self.account.dynamodb,
        )
        self.workflow.path = self
        self.wiring.workflow = self.workflow

    def attempt(self, batch: Delivery, context: Context | None = None) -> Outcome:
        return process(batch, self.wiring, context or Context())

    def drain(self, whole: Delivery) -> None:
        """Read the shard to its end as a mapping does, with faults that at last stop."""
        start = 0
        for attempt in range(ATTEMPTS_MAX):
            calm = attempt > ATTEMPTS_MAX // 2
            self.faults = [] if calm else [f for f in FAULTS if self.rng.random() < 0.3]
            stop = min(start + self.rng.randrange(1, 9), len(whole))
            batch = part(whole, start, stop)
            answer = kinesis.respond(batch, self.attempt(batch))["batchItemFailures"]
            if answer:
                start += batch.sequences.index(answer[0]["itemIdentifier"])
            else:
                start = stop
            if start == len(whole):
                self.pay()
                return
        pytest.fail("the shard does not drain")

    def pay(self) -> None:
        """Run the repair function until its queue is empty."""
        self.faults = []
        queue = self.account.repairs.url
        ask = partial(self.account.sqs.receive_message, QueueUrl=queue, MaxNumberOfMessages=10)
        while messages := ask().get("Messages", []):
            bodies = {message["MessageId"]: message["Body"] for message in messages}
            assert repair.pay(bodies, self.wiring, Context()) == []
            for message in messages:
                self.account.sqs.delete_message(
                    QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"]
                )
        owed, _ = ledger.debts(self.account.ledger)
        assert owed == {}

    def landed(self) -> pa.Table:
        schema = CONTRACT.landing_schema()
        found = [landing.read(self.account.bucket, k) for k in self.account.keys("landing/")]
        return pa.concat_tables([schema.empty_table(), *found])

    def rejected(self) -> pa.Table:
        found = [landing.read(self.account.bucket, k) for k in self.account.keys("quarantine/")]
        return pa.concat_tables([QUARANTINE_SCHEMA.empty_table(), *found])


class FailingBucket(Bucket):
    """A bucket that cannot be written while `archive` is among the faults."""

    def __init__(self, real: Bucket, path: Path) -> None:
        super().__init__(real.client, real.name)
        object.__setattr__(self, "path", path)

    def put_once(self, prefix: str, *arguments: Any, **named: Any) -> str:
        path: Path = vars(self)["path"]
        if "archive" in path.faults and (prefix == "raw" or path.rng.random() < 0.5):
            raise Unavailable("503")
        return super().put_once(prefix, *arguments, **named)


class FailingTable(Table):
    """A table that refuses some items for ever while `refused` is among the faults."""

    def __init__(self, real: Table, path: Path) -> None:
        super().__init__(real.client, real.name)
        object.__setattr__(self, "path", path)

    def put_each(  # type: ignore[override]
        self, count: int, puts: Iterable[bytes], *arguments: Any, **named: Any
    ) -> set[int]:
        path: Path = vars(self)["path"]
        refused = {n for n in range(count) if "refused" in path.faults and path.rng.random() < 0.4}
        taken = [(n, put) for n, put in enumerate(puts) if n not in refused]
        left = super().put_each(len(taken), (put for _, put in taken), *arguments, **named)
        return {taken[place][0] for place in left} | refused


class FailingWorkflow(InProcessWorkflow):
    """A workflow that dies before or after its work, or cannot settle."""

    path: Path

    def run(self, state: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
        if "died before" in self.path.faults:
            raise ExecutionFailed("FAILED")
        output = super().run(state, timeout_seconds)
        if "died after" in self.path.faults:
            raise Unavailable("no answer: the execution went on to its end all the same")
        return output

    def _task(self, spec: dict[str, Any], arguments: dict[str, Any]) -> Any:
        if "ledger" in self.path.faults and spec["Resource"].endswith("putItem"):
            raise ExecutionFailed("FAILED: DynamoDB.InternalServerErrorException")
        return super()._task(spec, arguments)


def part(whole: Delivery, start: int, stop: int) -> Delivery:
    return replace(
        whole,
        **{
            name: value[start:stop]
            for name, value in vars(whole).items()
            if isinstance(value, list)
        },
    )


def select(sql: str, rows: pa.Table, rejects: pa.Table) -> pa.Table:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("rows", rows)
        connection.register("rejects", rejects)
        connection.register("drops", DROPPED_SCHEMA.empty_table())
        return connection.sql(sql).to_arrow_table()


def count(sql: str, rows: pa.Table, rejects: pa.Table) -> int:
    return int(select(sql, rows, rejects).num_rows)
