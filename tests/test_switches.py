"""Local mappings are disabled by Lambda's own API, stay so, and go on without a loss."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from infra.esm.events import Place
from infra.esm.queue import QueueRules
from infra.local import delivery as pace
from infra.local.delivery import Delivery
from infra.local.invoke_api import Invocation, InvokeServer
from infra.local.queue_driver import QueueDriver
from infra.local.shard_driver import Ends, ShardDriver
from infra.local.switches import Switches
from infra.topology import StreamMapping
from tests.support import TOPOLOGY, client

STREAM, QUEUE = TOPOLOGY.stream_mapping, TOPOLOGY.queue_mapping
STREAM_ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/millrace-telemetry"
QUEUE_ARN = "arn:aws:sqs:us-east-1:000000000000:millrace-telemetry"
SUCCESS = b'{"batchItemFailures": []}'
PATIENCE_SECONDS = 10.0


@pytest.fixture
def switches(tmp_path: Path) -> Switches:
    return Switches(tmp_path / "paused", TOPOLOGY)


@pytest.fixture
def lambdas(switches: Switches) -> Iterator[Any]:
    """A real client of the local Lambda."""
    server = InvokeServer(lambda _name, payload: Invocation(payload, None, 0), switches)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield client("lambda", server.url)
    server.shutdown()
    thread.join()
    server.server_close()


def states(lambdas: Any, **of: str) -> dict[str, str]:
    answer = lambdas.list_event_source_mappings(**of)
    return {one["EventSourceArn"]: one["State"] for one in answer["EventSourceMappings"]}


# Lambda's API


def test_mappings_are_listed_by_function_and_source(lambdas: Any):
    assert states(lambdas) == {STREAM_ARN: "Enabled", QUEUE_ARN: "Enabled"}
    assert states(lambdas, FunctionName=STREAM.function) == {STREAM_ARN: "Enabled"}
    assert states(lambdas, EventSourceArn=QUEUE_ARN) == {QUEUE_ARN: "Enabled"}
    assert states(lambdas, FunctionName=STREAM.function, EventSourceArn=QUEUE_ARN) == {}


def test_a_disabled_mapping_stays_so_until_it_is_enabled(
    lambdas: Any, switches: Switches, tmp_path: Path
):
    listed = lambdas.list_event_source_mappings(FunctionName=STREAM.function)
    (uuid,) = (one["UUID"] for one in listed["EventSourceMappings"])
    for _ in range(2):
        told = lambdas.update_event_source_mapping(UUID=uuid, Enabled=False)
        assert (told["State"], told["ResponseMetadata"]["HTTPStatusCode"]) == ("Disabled", 202)
    assert lambdas.get_event_source_mapping(UUID=uuid)["State"] == "Disabled"
    for seen in (switches, Switches(tmp_path / "paused", TOPOLOGY)):
        assert not seen.enabled(STREAM.function)
        assert seen.enabled(QUEUE.function)
    for _ in range(2):
        assert lambdas.update_event_source_mapping(UUID=uuid, Enabled=True)["State"] == "Enabled"
    assert switches.enabled(STREAM.function)


def test_what_is_not_there_and_what_is_not_offered(lambdas: Any, switches: Switches):
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        lambdas.get_event_source_mapping(UUID="0" * 36)
    (known, _) = switches
    with pytest.raises(ClientError, match="only Enabled can be changed"):
        lambdas.update_event_source_mapping(UUID=known.uuid, BatchSize=7)
    assert lambdas.invoke(FunctionName="f", Payload=b"7")["Payload"].read() == b"7"


# Drivers


class Source:
    """A shard and a queue that hold numbered records; it counts how often it is looked into."""

    def __init__(self) -> None:
        self.held: list[int] = []
        self.looks = 0
        self.at = 0
        self.lock = threading.Lock()

    def get_shard_iterator(self, **_: Any) -> Any:
        return {"ShardIterator": "0"}

    def get_records(self, **_: Any) -> Any:
        return {
            "Records": [
                {
                    "SequenceNumber": str(number),
                    "PartitionKey": "k",
                    "Data": b"{}",
                    "ApproximateArrivalTimestamp": datetime.now(UTC),
                }
                for number in self._take(10_000)
            ],
            "NextShardIterator": "0",
            "MillisBehindLatest": 0,
        }

    def receive_message(self, **asked: Any) -> Any:
        return {
            "Messages": [
                {
                    "MessageId": str(number),
                    "ReceiptHandle": str(number),
                    "MD5OfBody": "",
                    "Body": "{}",
                    "Attributes": {"SentTimestamp": "0", "ApproximateReceiveCount": "1"},
                }
                for number in self._take(asked["MaxNumberOfMessages"])
            ]
        }

    def delete_message_batch(self, **_: Any) -> Any:
        return {}

    def _take(self, most: int) -> list[int]:
        with self.lock:
            self.looks += 1
            taken = self.held[self.at : self.at + most]
            self.at += len(taken)
            return taken


class Driven:
    """A driver in a thread, over a source, with a switch."""

    def __init__(self, kind: str, tmp_path: Path) -> None:
        self.source, self.on = Source(), True
        self.stop = threading.Event()
        self.got: list[int] = []
        self.script: list[bytes] = []
        self.trips = False  # the first invocation disables the mapping
        shared = Delivery("f", self._invoke, self.stop, lambda: self.on)
        place = Place(STREAM_ARN, "f", "us-east-1", "role", "shard" if kind == "kinesis" else "")
        if kind == "kinesis":
            ends = Ends(tmp_path, None, lambda _: None)
            mapping = StreamMapping("fleet", "f", 100, 0.01)
            run = ShardDriver(self.source, mapping, place, shared, ends).run
        else:
            rules = QueueRules(100, 0.01, maximum_concurrency=2)
            run = QueueDriver(self.source, rules, place, "url", shared).run
        self.thread = threading.Thread(target=run, daemon=True)

    def _invoke(self, _: str, payload: bytes) -> tuple[bytes, str | None]:
        if self.trips and not self.got:
            self.on = False
        records = json.loads(payload)["Records"]
        self.got += [
            int(one["kinesis"]["sequenceNumber"] if "kinesis" in one else one["messageId"])
            for one in records
        ]
        return (self.script.pop(0) if self.script else SUCCESS), None

    def until(self, true: Callable[[], bool]) -> None:
        limit = time.monotonic() + PATIENCE_SECONDS
        while not true():
            assert time.monotonic() < limit, "it never came to that"
            time.sleep(0.005)


@pytest.fixture(params=["kinesis", "sqs"])
def driven(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Driven]:
    monkeypatch.setattr(pace, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(pace, "BACKOFF_FIRST_SECONDS", 0.01)
    made = Driven(request.param, tmp_path)
    made.thread.start()
    yield made
    made.stop.set()
    made.thread.join(PATIENCE_SECONDS)
    assert not made.thread.is_alive()


def test_a_disabled_mapping_looks_into_nothing_and_goes_on_where_it_was(driven: Driven):
    driven.source.held += [1, 2, 3]
    driven.until(lambda: driven.got == [1, 2, 3])
    driven.on = False
    time.sleep(0.1)
    looks = driven.source.looks
    driven.source.held += [4, 5]
    time.sleep(0.2)
    assert driven.source.looks == looks
    assert driven.got == [1, 2, 3]
    driven.on = True
    driven.until(lambda: driven.got == [1, 2, 3, 4, 5])


def test_what_was_handed_back_as_the_breaker_tripped_waits_until_it_is_enabled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pace, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(pace, "BACKOFF_FIRST_SECONDS", 0.01)
    made = Driven("kinesis", tmp_path)
    made.script, made.trips = [b'{"batchItemFailures": [{"itemIdentifier": "1"}]}'], True
    made.source.held += [1, 2]
    made.thread.start()
    made.until(lambda: made.got == [1, 2])
    time.sleep(0.2)
    assert made.got == [1, 2]
    made.on = True
    made.until(lambda: made.got == [1, 2, 1, 2])
    made.until((tmp_path / "fleet.shard").exists)
    made.stop.set()
    made.thread.join(PATIENCE_SECONDS)
    assert (tmp_path / "fleet.shard").read_text() == "2"
