"""Seals: an hour is final when every source is past it, and says what it stands on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from infra.doubles.kinesis import Kinesis
from infra.doubles.world import Calm
from infra.esm.events import Place, kinesis_event
from infra.esm.simulated_stream import SimulatedStream
from infra.parked import NOTHING, on_failure
from infra.partitions import Complete, Lateness, shown
from infra.sealing import Sealer
from ingest import kinesis, markers, sqs
from ingest.process import process
from ingest.watermarks import Sources
from sinks import control
from sinks.errors import Unavailable
from sinks.lake import manifest, work
from sinks.lake.manifest import File, Manifest, Partition, Raced, Seal
from sinks.lake.seal import open_because, seal
from sinks.lake.watermark import Lanes, Watermark
from sinks.lake.work import Choice
from sinks.lake.workspace import workspace
from tests.edge import Edge, document
from tests.support import NOON, SECOND, Context, cloud, reading
from transform.pipeline import Transform

STREAM, QUEUE = "millrace-telemetry", "millrace-telemetry"
ZERO, ONE = "shardId-000000000000", "shardId-000000000001"
ELEVEN = NOON // (3_600 * SECOND) - 1  # the hour that ends at noon
HALF_PAST = NOON - 1_800 * SECOND
ARN = f"arn:aws:kinesis:us-east-1:0:stream/{STREAM}"


@dataclass
class Pipeline:
    """A pipeline of two shards whose Deliveries are those that a test makes."""

    edge: Edge
    stream: SimulatedStream = field(default_factory=lambda: SimulatedStream(2))
    factor: int = 1
    margin: int = 0
    parked: list[str] = field(default_factory=list)
    taken: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        account = self.edge.account
        self.url = account.sqs.create_queue(QueueName=QUEUE)["QueueUrl"]
        self.kinesis: Any = Kinesis(Calm(lambda: self.edge.clock.now), {STREAM: self.stream})

    def put(self, shard: str, *bodies: bytes, key: str = "k") -> None:
        """Records into a shard, now."""
        for body in bodies:
            low = self.stream.shards[shard].low
            self.stream.put(key, body, self.edge.clock.now, low)

    def mark(self) -> None:
        shards = markers.shards_of(self.kinesis, STREAM)
        markers.put(self.kinesis, STREAM, shards, round(self.edge.clock.now * SECOND))

    def deliver(self, *shards: str, key: str = "") -> None:
        """What the shards hold goes to ingest, a Delivery each; of a lane only one key's."""
        for shard in shards:
            held = self.stream.shards[shard].records
            some = [r for r in held if r.sequence > self.taken.get(shard + key, -1)]
            some = [record for record in some if key in ("", record.key)]
            place = Place(ARN, "arn:f", "us-east-1", "r", shard)
            if some:
                came = kinesis.read(json.loads(kinesis_event(some, place)))
                outcome = process(came, self.edge.wiring, Context())
                if not outcome.retried:
                    self.taken[shard + key] = some[-1].sequence

    def seal(self, lateness: int = 0) -> Manifest:
        """Compact, then seal what is final."""
        account, clock = self.edge.account, self.edge.clock
        list(work.run(account.bucket, account.ledger, self.contract, Choice(), clock))
        return self.sealer(lateness).seal()[1]

    def sealer(self, lateness: int = 0) -> Sealer:
        account = self.edge.account
        return Sealer(
            account.bucket,
            self.contract,
            Transform(self.contract),
            Sources(
                pipeline="p",
                stream=STREAM,
                lanes=Lanes(self.factor, self.margin),
                queues={QUEUE: self.url},
                kinesis=self.kinesis,
                sqs=account.sqs,
                bucket=account.bucket,
                ledger=account.ledger,
                clock=self.edge.clock,
            ),
            lambda: next((on_failure(k, account.bucket.get(k)) for k in self.parked), NOTHING),
            lateness,
        )

    def why(self) -> list[str]:
        """Why the hour before noon is open."""
        sealer = self.sealer()
        lake = manifest.read(sealer.bucket, "telemetry")
        return open_because(lake.by_hour[ELEVEN], sealer.look(), 0, ())

    @property
    def contract(self) -> Any:
        return self.edge.wiring.contract


@pytest.fixture
def made() -> Iterator[Pipeline]:
    with cloud() as account:
        yield Pipeline(Edge(account))


def test_an_hour_is_sealed_when_every_shard_is_past_it(made: Pipeline):
    made.put(ZERO, reading(moment=HALF_PAST))
    made.put(ONE, reading("sensor-2", moment=HALF_PAST))
    made.deliver(ZERO, ONE)
    found = made.seal().by_hour[ELEVEN].seal
    assert found is not None
    assert (found.as_of, found.exact, found.missing) == (NOON + 5 * SECOND, True, 0)


def test_the_allowed_lateness_keeps_it_open(made: Pipeline):
    made.put(ZERO, reading(moment=HALF_PAST))
    made.mark()
    made.deliver(ZERO, ONE)
    assert made.seal(lateness=6 * SECOND).by_hour[ELEVEN].seal is None
    assert made.seal(lateness=5 * SECOND).by_hour[ELEVEN].seal is not None


def test_a_shard_that_is_held_back_keeps_it_open_and_is_named(made: Pipeline):
    made.edge.clock.now -= 60
    made.put(ZERO, reading(moment=HALF_PAST))
    made.put(ONE, reading("sensor-2", moment=HALF_PAST))
    made.deliver(ZERO, ONE)
    made.edge.clock.now += 60
    made.mark()
    made.deliver(ZERO)
    made.edge.workflow.down = True
    made.deliver(ONE)
    made.edge.workflow.down = False
    assert made.seal().by_hour[ELEVEN].seal is None
    assert made.why() == [f"{STREAM}/{ONE} is not past it"]
    made.deliver(ONE)
    assert made.seal().by_hour[ELEVEN].seal is not None


def test_an_idle_shard_is_heard_of_by_markers_alone(made: Pipeline):
    made.put(ZERO, reading(moment=HALF_PAST))
    made.deliver(ZERO, ONE)
    assert made.seal().by_hour[ELEVEN].seal is None
    assert made.why() == [f"{STREAM}/{ONE}: nothing of it has been settled yet"]
    made.mark()
    made.deliver(ONE)
    assert made.seal().by_hour[ELEVEN].seal is not None
    assert made.seal().rows == 1


def test_a_key_that_is_held_back_while_another_goes_on_is_not_sealed_over(made: Pipeline):
    made.factor, made.margin = 2, 2 * SECOND
    made.edge.clock.now -= 10
    made.put(ZERO, reading(moment=HALF_PAST), key="a")
    made.put(ONE, reading("sensor-3", moment=HALF_PAST))
    made.edge.workflow.down = True
    made.deliver(ZERO, key="a")
    made.edge.workflow.down = False
    made.edge.clock.now += 10
    made.put(ZERO, reading("sensor-2", moment=HALF_PAST), key="b")
    made.edge.clock.now += 3
    made.mark()
    made.deliver(ZERO, key="b")
    made.deliver(ZERO, key=markers.KEY)
    made.deliver(ONE)
    assert made.seal().by_hour[ELEVEN].seal is None
    assert made.why() == [f"{STREAM}/{ZERO} is not past it"]
    made.deliver(ZERO, key="a")
    found = made.seal().by_hour[ELEVEN]
    assert found.rows == 3
    assert found.seal is not None
    assert not found.seal.exact


def test_a_shard_that_was_split_holds_back_until_its_children_are_begun(made: Pipeline):
    made.put(ZERO, reading(moment=HALF_PAST))
    made.put(ONE, reading("sensor-2", moment=HALF_PAST))
    made.deliver(ONE)
    left, right = made.stream.split(ZERO)
    assert made.seal().by_hour[ELEVEN].seal is None
    made.deliver(ZERO)
    assert made.seal().by_hour[ELEVEN].seal is None
    made.mark()
    made.deliver(left, right)
    assert made.seal().by_hour[ELEVEN].seal is not None


def test_a_parked_record_is_known_to_be_missing_until_it_is_replayed(made: Pipeline):
    lost = reading("sensor-9", moment=HALF_PAST)
    made.put(ZERO, reading(moment=HALF_PAST))
    made.put(ONE, reading("sensor-2", moment=HALF_PAST))
    made.deliver(ZERO, ONE)
    key = "on-failure/a"
    told = document([lost, b"no reading"], payload=True)
    made.edge.account.bucket.put(key, json.dumps(told).encode())
    made.parked.append(key)
    found = made.seal().by_hour[ELEVEN].seal
    assert found is not None
    assert found.missing == 1
    made.edge.ingest([lost])  # under the position that it was parked with
    assert made.seal().by_hour[ELEVEN].seal == replace(found, missing=0, sealed_at=found.sealed_at)


def test_what_a_pointer_tells_of_may_be_missing_anywhere(made: Pipeline):
    made.put(ZERO, reading(moment=HALF_PAST))
    made.mark()
    made.deliver(ZERO, ONE)
    key = "on-failure/a"
    told = document([b"a", b"b"], payload=False)
    made.edge.account.bucket.put(key, json.dumps(told).encode())
    made.parked.append(key)
    found = made.seal().by_hour[ELEVEN].seal
    assert found is not None
    assert found.missing == 2


def test_with_messages_by_a_queue_a_seal_is_approximate(made: Pipeline):
    event = {
        "Records": [
            {
                "eventSource": "aws:sqs",
                "eventSourceARN": f"arn:aws:sqs:us-east-1:0:{QUEUE}",
                "messageId": "m-1",
                "receiptHandle": "r",
                "body": reading(moment=HALF_PAST).decode(),
                "attributes": {"SentTimestamp": str(NOON // 1_000)},
            }
        ]
    }
    process(sqs.read(event), made.edge.wiring, Context())
    made.mark()
    made.deliver(ZERO, ONE)
    account = made.edge.account
    account.sqs.send_message(QueueUrl=made.url, MessageBody="later")
    assert made.seal().by_hour[ELEVEN].seal is None
    assert made.why() == [f"queue {QUEUE}: 1 messages wait; when it was empty"]
    account.sqs.purge_queue(QueueUrl=made.url)
    found = made.seal().by_hour[ELEVEN].seal
    assert found is not None
    assert not found.exact


def test_new_ids_reopen_an_hour_and_it_is_sealed_again(made: Pipeline):
    made.put(ZERO, reading(moment=HALF_PAST))
    made.mark()
    made.deliver(ZERO, ONE)
    first = made.seal().by_hour[ELEVEN]
    made.edge.clock.now += 1
    made.put(ZERO, reading("sensor-2", moment=HALF_PAST))
    made.deliver(ZERO)
    again = made.seal().by_hour[ELEVEN]
    assert (first.rows, again.rows) == (1, 2)
    assert first.digest != again.digest
    assert first.seal is not None
    assert again.seal is None  # until the other shard is past it again, too
    made.mark()
    made.deliver(ZERO, ONE)
    found = made.seal().by_hour[ELEVEN].seal
    assert found is not None
    assert found.as_of > first.seal.as_of


def test_rows_that_are_not_compacted_keep_an_hour_open(made: Pipeline):
    made.put(ZERO, reading(moment=HALF_PAST))
    made.mark()
    made.deliver(ZERO, ONE)
    sealer = made.sealer()
    assert sealer.seal()[1].version == 0
    made.seal()
    made.put(ZERO, reading("sensor-2", moment=HALF_PAST))
    made.deliver(ZERO)
    before, after = sealer.seal()
    assert before == after


def test_a_look_reads_no_more_than_what_is_new(made: Pipeline):
    made.mark()
    made.deliver(ZERO, ONE)
    sealer = made.sealer()
    first = sealer.look()
    known = control.read(made.edge.account.bucket, "watermarks-p")
    assert known is not None
    assert known["shards"] == {ZERO: NOON + 5 * SECOND, ONE: NOON + 5 * SECOND}
    items = made.edge.account.ledger.scan()
    for item in list(items):
        keys = {name: item[name] for name in ("pk", "sk")}
        made.edge.account.dynamodb.delete_item(TableName="millrace-ledger", Key=keys)
    assert sealer.look() == first


def test_hours_are_shown_with_what_is_in_them(made: Pipeline):
    bodies = [reading(moment=HALF_PAST + n * SECOND, seq=n) for n in (3, 4, 6, 7, 8)]
    made.put(ZERO, *bodies, reading("sensor-2", moment=HALF_PAST, seq=1), bodies[0])
    made.mark()
    made.deliver(ZERO, ONE)
    made.seal()
    made.put(ZERO, reading("sensor-3", moment=NOON))
    made.deliver(ZERO)
    sealer = made.sealer()
    lake = manifest.read(sealer.bucket, "telemetry")
    with workspace(sealer.bucket) as room:
        found = list(shown(room, made.contract, lake, sealer.look(), 0, range(10**6)))
    [eleven, noon] = found
    assert (eleven.partition.rows, eleven.partition.ids, eleven.partition.conflicts) == (6, 6, 0)
    assert eleven.complete == Complete(seen=6, counted=7)
    assert eleven.lateness == Lateness(p50=1_799.0, p95=1_805.0, p99=1_805.0, max=1_805.0)
    assert (eleven.open, eleven.waiting) == ((), 0)
    assert (noon.partition.rows, noon.waiting) == (0, 1)
    assert "objects with rows of it are not compacted yet" in noon.open
    told = eleven.to_json()
    assert told["completeness"] == {"seen": 6, "counted": 7}
    assert told["sealed"]["as_of"] == "2026-11-24T12:00:05Z"
    json.dumps([one.to_json() for one in found])


# The rule itself


FILE = File("k", 1, 1, NOON, NOON, ("g",))
LAKE = Manifest("t", partitions=(Partition(ELEVEN, 1, 1, 0, "0", (FILE,)),))


def test_without_any_source_nothing_is_final():
    assert seal(LAKE, [], 0, (), NOON) == LAKE
    assert open_because(LAKE.partitions[0], [], 0, ()) == ["no source says how far it is"]


def test_a_seal_stays_as_it_is_while_its_hour_does():
    first = seal(LAKE, [Watermark("s", NOON, exact=True, why="")], 0, (), NOON + 1)
    later = [Watermark("s", NOON + 9, exact=False, why="")]
    assert first.partitions[0].seal == Seal(NOON, NOON + 1, exact=True, missing=0)
    assert seal(first, later, 0, (), NOON + 10) == first
    known = seal(first, later, 0, (), NOON + 10, {ELEVEN: 2})
    assert known.partitions[0].seal == Seal(NOON + 9, NOON + 10, exact=False, missing=2)


def test_a_commit_that_was_raced_is_made_again(made: Pipeline, monkeypatch: pytest.MonkeyPatch):
    made.put(ZERO, reading(moment=HALF_PAST))
    made.mark()
    made.deliver(ZERO, ONE)
    account, clock = made.edge.account, made.edge.clock
    list(work.run(account.bucket, account.ledger, made.contract, Choice(), clock))
    real, raced = manifest.commit, []

    def commit(bucket: Any, old: Manifest, new: Manifest) -> Manifest:
        if not raced:
            raced.append(real(bucket, old, replace(old, made_at=7)))
        return real(bucket, old, new)

    monkeypatch.setattr(manifest, "commit", commit)
    assert made.sealer().seal()[1].by_hour[ELEVEN].seal is not None
    monkeypatch.setattr(manifest, "commit", _always_raced)
    made.parked.append("on-failure/x")
    account.bucket.put("on-failure/x", json.dumps(document([b"a"], payload=False)).encode())
    with pytest.raises(Raced, match="another committer"):
        made.sealer().seal()


def _always_raced(*_: Any) -> Manifest:
    raise Raced("always")


def test_a_stream_that_cannot_be_asked_is_weather(made: Pipeline):
    sealer = made.sealer()
    gone = replace(sealer, sources=replace(sealer.sources, stream="none"))
    with pytest.raises((Unavailable, Exception), match="none"):
        gone.look()
