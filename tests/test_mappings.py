"""The event source mappings keep Lambda's promises: batches, answers, checkpoints, deletions.

The sources are scripted, because the emulator cannot be told to throttle, expire an iterator or
lose an answer; the events are read by the functions that Lambda itself would hand them to.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from infra.esm import events
from infra.esm.events import PAYLOAD_MAX_BYTES, Place, kinesis_event, sqs_event
from infra.esm.queue import QueueRules
from infra.local import delivery
from infra.local.delivery import Delivery, NotInvoked
from infra.local.mappings import Mappings
from infra.local.queue_driver import QueueDriver
from infra.local.shard_driver import Ends, ShardDriver
from infra.topology import QueueMapping, StreamMapping
from ingest import kinesis, sqs

SHARD = "shardId-000000000000"
PLACE = Place(
    "arn:aws:kinesis:us-east-1:000000000000:stream/fleet", "f", "us-east-1", "role", SHARD
)
QUEUE = Place("arn:aws:sqs:us-east-1:000000000000:fleet", "f", "us-east-1", "role")
NOON = datetime(2026, 11, 24, 12, 0, 0, 123_000, tzinfo=UTC)
PATIENCE_SECONDS = 10.0  # far above what any of these needs
SUCCESS = b'{"batchItemFailures": []}'


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Pauses that a test does not have to sit out."""
    monkeypatch.setattr(delivery, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(delivery, "BACKOFF_FIRST_SECONDS", 0.01)
    monkeypatch.setattr(delivery, "BACKOFF_MAX_SECONDS", 0.02)


def failures(*identifiers: Any) -> bytes:
    return json.dumps(
        {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in identifiers]}
    ).encode()


# ---- Events, as the functions read them ----


def record(number: int, data: bytes = b"{}", key: str = "k") -> dict[str, Any]:
    return {
        "SequenceNumber": str(number),
        "ApproximateArrivalTimestamp": NOON,
        "Data": data,
        "PartitionKey": key,
    }


def message(number: int, body: str = "{}", **more: Any) -> dict[str, Any]:
    return {
        "MessageId": f"id-{number}",
        "ReceiptHandle": f"handle-{number}",
        "MD5OfBody": "0" * 32,
        "Body": body,
        "Attributes": {"SentTimestamp": "1795521600123", "ApproximateReceiveCount": "1"},
        **more,
    }


def test_kinesis_event_is_what_ingest_reads():
    at = NOON.timestamp()
    records = [
        events.record("7", "d-1", b'{"a":1}', at),
        events.record("8", "\N{SNOWMAN}", b"\xff\x00", at),
    ]
    delivery = kinesis.read(json.loads(kinesis_event(records, PLACE)))
    assert delivery.source == "kinesis"
    assert delivery.stream == "fleet"
    assert delivery.shards == [SHARD, SHARD]
    assert delivery.sequences == ["7", "8"]
    assert delivery.groups == ["d-1", "\N{SNOWMAN}"]
    assert delivery.bodies == [b'{"a":1}', b"\xff\x00"]
    assert delivery.arrivals == [1_795_521_600_123_000] * 2


def test_sqs_event_is_what_ingest_reads():
    attributes = {
        "MessageAttributes": {
            "kind": {"DataType": "String", "StringValue": "x"},
            "blob": {"DataType": "Binary", "BinaryValue": b"\xff"},
        }
    }
    grouped = {"SentTimestamp": "1795521600123", "MessageGroupId": "g"}
    messages = [message(1, '{"a":"\N{SNOWMAN}"}', **attributes), message(2, Attributes=grouped)]
    delivery = sqs.read(json.loads(sqs_event([events.message(one, QUEUE) for one in messages])))
    assert delivery.source == "sqs"
    assert delivery.stream == "fleet"
    assert delivery.shards == ["", ""]
    assert delivery.sequences == ["id-1", "id-2"]
    assert delivery.groups == [None, "g"]
    assert delivery.bodies == ['{"a":"\N{SNOWMAN}"}'.encode(), b"{}"]
    assert delivery.arrivals == [1_795_521_600_123_000] * 2
    assert json.loads(delivery.attributes[0] or "") == {
        "kind": {"dataType": "String", "stringValue": "x"},
        "blob": {"dataType": "Binary", "binaryValue": "/w=="},
    }
    assert delivery.attributes[1] is None


# ---- Kinesis ----


class Stream:
    """A shard that holds records, and answers GetRecords as scripted, else with what it holds."""

    def __init__(self, *numbers: int) -> None:
        self.records = [record(number) for number in numbers]
        self.script: list[Exception] = []
        self.opened: list[tuple[str, str]] = []
        self.reads = 0
        self.page = 10_000

    def get_shard_iterator(self, **asked: Any) -> Any:
        behind = asked.get("StartingSequenceNumber", "")
        self.opened.append((asked["ShardIteratorType"], behind))
        after = int(behind or -1)
        numbers = [int(held["SequenceNumber"]) for held in self.records]
        return {"ShardIterator": str(sum(number <= after for number in numbers))}

    def get_records(self, **asked: Any) -> Any:
        self.reads += 1
        if self.script:
            raise self.script.pop(0)
        start = int(asked["ShardIterator"])
        records = self.records[start : start + min(asked["Limit"], self.page)]
        return {
            "Records": records,
            "NextShardIterator": str(start + len(records)),
            "MillisBehindLatest": 0,
        }

    def list_shards(self, **_: Any) -> Any:
        return {"Shards": [{"ShardId": SHARD}]}


class Function:
    """A function that answers as scripted, then with success, and keeps what it was given.

    When nothing is left to do it tells the poller to stop.
    """

    def __init__(
        self, stop: threading.Event, read: Callable[[Any], Any], done: Callable[[list[str]], bool]
    ) -> None:
        self.stop, self.read, self.done = stop, read, done
        self.script: list[tuple[bytes, str | None] | NotInvoked] = []
        self.batches: list[list[str]] = []
        self.taken: list[str] = []

    def __call__(self, _: str, payload: bytes) -> tuple[bytes, str | None]:
        assert len(payload) <= PAYLOAD_MAX_BYTES
        batch = self.read(json.loads(payload)).sequences
        self.batches.append(batch)
        answer = self.script.pop(0) if self.script else (SUCCESS, None)
        if isinstance(answer, NotInvoked):
            raise answer
        if answer == (SUCCESS, None):
            self.taken += batch
        if self.done(self.taken) or len(self.batches) > 50:
            self.stop.set()
        return answer


class Shard:
    """A stream of one shard, its function, and pollers to run on it one after another."""

    def __init__(
        self, stream: Stream, checkpoints: Path, *, batch: int = 100, window: float = 0.05
    ) -> None:
        self.stream = stream
        self.checkpoints = checkpoints
        self.mapping = StreamMapping("fleet", "ingest", batch, window)
        self.stop = threading.Event()
        last = str(max((int(r["SequenceNumber"]) for r in stream.records), default=0))
        self.function = Function(self.stop, kinesis.read, lambda taken: last in taken)

    def run(self) -> Delivery:
        self.stop.clear()
        shared = Delivery("ingest", self.function, self.stop)
        run_to_its_end(self.driver(shared).run, self.stop)
        return shared

    def driver(self, shared: Delivery, park: Any = None) -> ShardDriver:
        ends = Ends(self.checkpoints, park, lambda _: self.stop.set())
        return ShardDriver(self.stream, self.mapping, PLACE, shared, ends)

    @property
    def checkpoint(self) -> str:
        file = self.checkpoints / f"fleet.{SHARD}"
        return file.read_text() if file.exists() else ""


def run_to_its_end(run: Callable[[], None], stop: threading.Event) -> None:
    """Run a poller until its function says stop; a test that waits in vain fails."""
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    ended = not thread.is_alive()
    stop.set()
    thread.join(PATIENCE_SECONDS)
    assert ended, "the poller never got to the end of its work"


def throttled(operation: str) -> ClientError:
    return ClientError({"Error": {"Code": "ProvisionedThroughputExceededException"}}, operation)


def sequences(*numbers: int) -> list[str]:
    return [str(number) for number in numbers]


def test_a_batch_is_what_the_window_brought(tmp_path):
    stream = Stream(1, 2, 3, 4, 5)
    stream.page = 2  # three reads, all inside one window
    shard = Shard(stream, tmp_path, window=0.5)
    shared = shard.run()
    assert shard.function.batches == [sequences(1, 2, 3, 4, 5)]
    assert shard.checkpoint == "5"
    assert (shared.tally.records, shared.tally.invocations, shared.tally.errors) == (5, 1, 0)


def test_a_batch_is_cut_by_count_without_waiting_for_the_window(tmp_path):
    shard = Shard(Stream(*range(1, 8)), tmp_path, batch=3, window=0.05)
    shard.run()
    assert shard.function.batches == [sequences(1, 2, 3), sequences(4, 5, 6), sequences(7)]
    full = Shard(Stream(*range(1, 7)), tmp_path / "none", batch=3, window=300.0)
    full.checkpoints.mkdir()
    full.run()  # a full batch never waits: five minutes would fail the test
    assert full.function.batches == [sequences(1, 2, 3), sequences(4, 5, 6)]


def test_a_batch_is_cut_by_bytes(tmp_path):
    stream = Stream()
    stream.records = [record(n, bytes(1_000_000)) for n in range(1, 7)]
    shard = Shard(stream, tmp_path)
    shard.run()
    assert shard.function.batches == [sequences(1, 2, 3, 4), sequences(5, 6)]


def test_a_partial_answer_moves_the_checkpoint_to_the_lowest_number_as_an_integer(tmp_path):
    """As text "10" sorts before "9": the checkpoint would go back, or skip what must come again."""
    shard = Shard(Stream(8, 9, 10, 11), tmp_path)
    shard.function.script = [(failures("10", "9"), None)]
    shared = shard.run()
    assert shard.function.batches == [sequences(8, 9, 10, 11), sequences(9, 10, 11)]
    assert shard.checkpoint == "11"
    assert shared.tally.handed_back == 3


def test_the_first_record_can_be_the_one_handed_back(tmp_path):
    shard = Shard(Stream(1, 2), tmp_path)
    shard.function.script = [(failures("1"), None), (failures("2"), None)]
    shard.run()
    assert shard.function.batches == [sequences(1, 2), sequences(1, 2), sequences(2)]


@pytest.mark.parametrize(
    "answer",
    [
        (b'{"errorMessage": "no"}', "Unhandled"),
        (b"not JSON", None),
        (failures("77"), None),
        NotInvoked("throttled"),
    ],
)
def test_an_error_brings_the_whole_batch_again_and_moves_nothing(tmp_path, answer):
    shard = Shard(Stream(1, 2, 3), tmp_path)
    shard.function.script = [answer]
    seen: list[str] = []

    def watched(name: str, payload: bytes) -> Any:
        seen.append(shard.checkpoint)
        return shard.function(name, payload)

    shared = Delivery("ingest", watched, shard.stop)
    run_to_its_end(shard.driver(shared).run, shard.stop)
    assert shard.function.batches == [sequences(1, 2, 3)] * 2
    assert seen == ["", ""]
    assert shard.checkpoint == "3"
    assert shared.tally.errors == 1
    assert shared.tally.last_error


def test_a_restart_goes_on_behind_the_checkpoint(tmp_path):
    shard = Shard(Stream(1, 2, 3), tmp_path)
    shard.run()
    shard.stream.records += [record(4), record(5)]
    shard.function.done = lambda taken: "5" in taken
    shard.run()
    assert shard.function.batches == [sequences(1, 2, 3), sequences(4, 5)]
    assert shard.stream.opened == [("TRIM_HORIZON", ""), ("AFTER_SEQUENCE_NUMBER", "3")]


def test_a_restart_after_a_partial_answer_begins_at_what_was_handed_back(tmp_path):
    shard = Shard(Stream(1, 2, 3), tmp_path)
    shard.function.script = [(failures("2"), None)]
    shard.function.done = lambda _: True
    shard.run()
    shard.function.done = lambda taken: "3" in taken
    shard.run()
    assert shard.function.batches[-1] == sequences(2, 3)
    assert shard.checkpoint == "3"


@pytest.mark.parametrize(
    "error",
    [
        throttled("GetRecords"),
        ClientError({"Error": {"Code": "ExpiredIteratorException"}}, "GetRecords"),
        EndpointConnectionError(endpoint_url="http://127.0.0.1:1"),
        OSError(28, "No space left on device"),
    ],
)
def test_an_error_of_the_stream_is_tried_again_and_nothing_is_read_twice(tmp_path, error):
    stream = Stream(1, 2, 3, 4)
    stream.page = 2
    shard = Shard(stream, tmp_path, batch=4, window=300.0)
    original = stream.get_records

    def failing_second(**arguments: Any) -> Any:
        if stream.reads == 1:
            stream.script = [error]
        return original(**arguments)

    stream.get_records = failing_second  # type: ignore[method-assign]
    shared = shard.run()
    assert shard.function.batches == [sequences(1, 2, 3, 4)]
    assert stream.opened[-1] == ("AFTER_SEQUENCE_NUMBER", "2")
    assert shared.tally.last_error


def test_nothing_is_delivered_after_stop(tmp_path):
    shard = Shard(Stream(1), tmp_path)
    shard.stop.set()
    shared = Delivery("ingest", shard.function, shard.stop)
    shard.driver(shared).run()
    assert shard.function.batches == []


def test_what_is_given_up_is_written_with_its_payload_before_the_checkpoint_moves(tmp_path):
    """The destination fails once; nothing is acknowledged before the object is durable."""
    shard = Shard(Stream(1, 2, 3), tmp_path, batch=3)
    shard.mapping = replace(shard.mapping, maximum_retry_attempts=1)
    shard.function.script = [(b"{}", "Unhandled")] * 2
    written: list[tuple[str, bytes]] = []
    tries: list[str] = []

    def park(key: str, data: bytes) -> None:
        tries.append(shard.checkpoint)
        if len(tries) == 1:
            raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")
        written.append((key, data))
        shard.stop.set()

    shared = Delivery("ingest", shard.function, shard.stop)
    run_to_its_end(shard.driver(shared, park).run, shard.stop)
    assert tries == ["", ""]
    assert shard.checkpoint == "3"
    assert shared.tally.discarded == 3
    ((key, data),) = written
    assert re.fullmatch(
        rf"aws/lambda/ingest/{SHARD}/\d{{4}}/\d\d/\d\d/"
        r"\d{4}-\d\d-\d\dT\d\d\.\d\d\.\d\d-[0-9a-f-]{36}",
        key,
    )
    told = json.loads(data)
    assert told["KinesisBatchInfo"]["batchSize"] == 3
    assert kinesis.read(json.loads(told["payload"])).sequences == sequences(1, 2, 3)


def test_a_poison_record_is_bisected_out(tmp_path):
    shard = Shard(Stream(1, 2, 3, 4), tmp_path, batch=4)
    shard.mapping = replace(shard.mapping, bisect=True, maximum_retry_attempts=0)
    died = (b"{}", "Unhandled")
    shard.function.script = [died, (SUCCESS, None), died, died]
    shard.run()
    assert shard.function.batches == [
        sequences(1, 2, 3, 4),
        sequences(1, 2),
        sequences(3, 4),
        sequences(3),
        sequences(4),
    ]
    assert shard.checkpoint == "4"


def test_children_are_read_when_their_parents_are_done(tmp_path):
    class Resharded(Stream):
        """Two shards that were merged: both end, the child goes on."""

        def list_shards(self, **_: Any) -> Any:
            parents = {"ParentShardId": "a", "AdjacentParentShardId": "b"}
            return {"Shards": [{"ShardId": "a"}, {"ShardId": "b"}, {"ShardId": "ab", **parents}]}

        def get_shard_iterator(self, **asked: Any) -> Any:
            return {"ShardIterator": asked["ShardId"]}

        def get_records(self, **asked: Any) -> Any:
            shard = asked["ShardIterator"]
            number = {"a": 1, "b": 2, "ab": 3, "": 0}[shard]
            return {"Records": [record(number)], "NextShardIterator": None}

    delivered: list[str] = []
    done = threading.Event()

    def invoke(_: str, payload: bytes) -> tuple[bytes, None]:
        delivered.extend(kinesis.read(json.loads(payload)).sequences)
        if "3" in delivered:
            done.set()
        return SUCCESS, None

    all_of_them = Mappings(invoke)
    all_of_them.poll_stream(Resharded(), StreamMapping("fleet", "a", 10, 0.02), tmp_path)
    assert done.wait(PATIENCE_SECONDS)
    all_of_them.stop(PATIENCE_SECONDS)
    assert sorted(delivered[:2]) == sequences(1, 2)
    assert delivered[2:] == sequences(3)


def test_what_was_under_way_when_told_to_stop_is_checkpointed(tmp_path):
    shard = Shard(Stream(1, 2), tmp_path, batch=2)
    shard.function.done = lambda _: True  # it tells to stop while it runs
    shard.run()
    assert shard.checkpoint == "2"


# ---- SQS ----


class Queue:
    """A queue: what is received is invisible, what is deleted is gone."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.visible = list(messages)
        self.invisible: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.script: list[Exception] = []
        self.received: list[int] = []

    def receive_message(self, **asked: Any) -> Any:
        most = asked["MaxNumberOfMessages"]
        assert 1 <= most <= 10
        if self.script:
            raise self.script.pop(0)
        messages, self.visible = self.visible[:most], self.visible[most:]
        self.invisible += messages
        self.received.append(len(messages))
        return {"Messages": messages} if messages else {}

    def delete_message_batch(self, **asked: Any) -> Any:
        entries = asked["Entries"]
        assert 1 <= len(entries) <= 10
        assert len({entry["Id"] for entry in entries}) == len(entries)
        self.deleted += [entry["ReceiptHandle"].replace("handle", "id") for entry in entries]
        return {"Successful": [{"Id": entry["Id"]} for entry in entries]}

    def reappear(self) -> None:
        """The visibility timeout has passed."""
        self.visible += [m for m in self.invisible if m["MessageId"] not in self.deleted]
        self.invisible = []


def ids(*numbers: int) -> list[str]:
    return [f"id-{number}" for number in numbers]


def poll(
    queue: Queue,
    *script: tuple[bytes, str | None] | NotInvoked,
    batch: int = 100,
    window: float = 0.05,
    calls: int = 1,
) -> tuple[Function, Delivery]:
    """Run one poller until its function was called so many times."""
    stop = threading.Event()
    function = Function(stop, sqs.read, lambda _: len(function.batches) >= calls)
    function.script = list(script)
    shared = Delivery("ingest", function, stop)
    rules = QueueRules(batch, window, maximum_concurrency=2)

    def invoke(name: str, payload: bytes) -> Any:
        try:
            return function(name, payload)
        finally:
            if len(function.batches) >= calls:
                stop.set()

    shared.invoke = invoke
    run_to_its_end(QueueDriver(queue, rules, QUEUE, "url", shared).run, stop)
    return function, shared


def test_exactly_what_was_not_handed_back_is_deleted():
    queue = Queue(*map(message, range(25)))
    function, shared = poll(queue, (failures("id-3", "id-17"), None))
    assert function.batches == [ids(*range(25))]
    assert sorted(queue.deleted) == sorted(set(ids(*range(25))) - {"id-3", "id-17"})
    assert shared.tally.handed_back == 2
    assert shared.tally.records == 23
    queue.reappear()
    again, _ = poll(queue)
    assert again.batches == [ids(3, 17)]


@pytest.mark.parametrize(
    "answer",
    [
        (b'{"errorMessage": "no"}', "Unhandled"),
        (b"not JSON", None),
        (failures("id-77"), None),
        (failures("id-1", ""), None),
        NotInvoked("throttled"),
    ],
)
def test_nothing_is_acknowledged_when_the_function_fails(answer):
    queue = Queue(*map(message, range(3)))
    _, shared = poll(queue, answer)
    assert queue.deleted == []
    assert shared.tally.errors == 1
    queue.reappear()
    again, _ = poll(queue)
    assert again.batches == [ids(0, 1, 2)]
    assert queue.deleted == ids(0, 1, 2)


def test_all_handed_back_deletes_nothing():
    queue = Queue(*map(message, range(3)))
    poll(queue, (failures(*ids(0, 1, 2)), None))
    assert queue.deleted == []


@pytest.mark.parametrize(
    "error",
    [
        ClientError({"Error": {"Code": "RequestThrottled"}}, "ReceiveMessage"),
        EndpointConnectionError(endpoint_url="http://127.0.0.1:1"),
    ],
)
def test_an_error_of_the_queue_is_tried_again(error):
    queue = Queue(message(1))
    queue.script = [error]
    function, shared = poll(queue)
    assert function.batches == [ids(1)]
    assert queue.deleted == ids(1)
    assert shared.tally.last_error


def test_messages_received_before_an_error_are_not_forgotten():
    """They are invisible to all others: whoever drops them waits for the visibility timeout."""
    queue = Queue(*map(message, range(10)))
    original = queue.receive_message

    def failing_second(**arguments: Any) -> Any:
        if len(queue.received) == 1 and not queue.script:
            queue.received.append(0)
            queue.script = [throttled("ReceiveMessage")]
        return original(**arguments)

    queue.receive_message = failing_second  # type: ignore[method-assign]
    function, _ = poll(queue)
    assert function.batches == [ids(*range(10))]


def test_a_queue_batch_is_cut_by_count():
    queue = Queue(*map(message, range(30)))
    function, _ = poll(queue, batch=12, window=0.2, calls=3)
    assert sorted(len(batch) for batch in function.batches) == [6, 12, 12]
    assert sorted(queue.deleted) == sorted(ids(*range(30)))


def test_a_queue_batch_is_cut_by_the_bytes_of_its_event():
    """A megabyte of quotes is two of JSON; ten of them are received at once, three fit."""
    queue = Queue(*(message(n, '"' * 1_000_000) for n in range(10)))
    function, _ = poll(queue, calls=4)
    assert sorted(len(batch) for batch in function.batches) == [1, 3, 3, 3]
    assert sorted(queue.deleted) == sorted(ids(*range(10)))


def test_what_was_received_when_told_to_stop_is_still_delivered():
    """Otherwise it would stay invisible until the queue's timeout."""
    stop = threading.Event()
    queue = Queue(message(1))
    original = queue.receive_message

    def stopping(**arguments: Any) -> Any:
        stop.set()
        return original(**arguments)

    queue.receive_message = stopping  # type: ignore[method-assign]
    function = Function(stop, sqs.read, lambda _: True)
    rules = QueueRules(100, 300.0, maximum_concurrency=2)
    QueueDriver(queue, rules, QUEUE, "url", Delivery("ingest", function, stop)).run()
    assert function.batches == [ids(1)]
    assert queue.deleted == ids(1)


# ---- All of them ----


def test_mappings_poll_all_sources_and_stop(tmp_path):
    done = threading.Event()
    delivered: list[tuple[str, int]] = []

    def invoke(name: str, payload: bytes) -> tuple[bytes, None]:
        delivered.append((name, len(json.loads(payload)["Records"])))
        if len(delivered) == 2:
            done.set()
        return SUCCESS, None

    both = Mappings(invoke)
    stream, queue = Stream(1, 2), Queue(message(1))
    both.poll_stream(stream, StreamMapping("fleet", "a", 10, 0.02), tmp_path / "checkpoints")
    both.poll_queue(queue, QueueMapping("fleet", "b", 10, 0.02, 2), "url")
    assert done.wait(PATIENCE_SECONDS)
    both.stop(PATIENCE_SECONDS)
    both.stop(PATIENCE_SECONDS)
    assert sorted(delivered) == [("a", 2), ("b", 1)]
    assert not any(thread.is_alive() for thread in both._threads)
    assert (tmp_path / "checkpoints" / f"fleet.{SHARD}").read_text() == "2"
    assert both.tallies["kinesis"].records == 2
    assert both.tallies["sqs"].records == 1
