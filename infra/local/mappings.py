"""Event source mappings, first cut: what Lambda's pollers do between a source and a function.

For Kinesis one poller a shard: batches by count, bytes and window; the answer's lowest sequence
number is the checkpoint; an error retries the whole batch. For SQS as many pollers as the mapping's
maximum concurrency: what the answer does not name is deleted, the rest becomes visible again by the
queue's timeout. Retries have no end here: bisect, age, retry limits and redrive of the mapping's
own are not modelled yet.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson

from infra.local.emulator import ACCOUNT, REGION
from infra.topology import QueueMapping, StreamMapping

PAYLOAD_MAX_BYTES = 6_291_456  # Lambda: a synchronous invocation's payload
RECORD_OVERHEAD_BYTES = 700  # of the event around a Kinesis record's data and key, names at most
GET_RECORDS_MAX = 10_000  # Kinesis GetRecords: records a call
RECEIVE_MAX = 10  # SQS ReceiveMessage and DeleteMessageBatch: messages a call
IDLE_SECONDS = 0.2  # between polls of an empty source; Lambda's base rate is one a second
BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_MAX_SECONDS = 30.0

T = TypeVar("T")

Invoke = Callable[[str, bytes], tuple[bytes, str | None]]
"""Function name and payload to answer and function error, as Lambda's Invoke."""


class AnswerError(ValueError):
    """A function's answer that Lambda would not take: the whole batch counts as failed."""


@dataclass
class Tally:
    """What a mapping has done so far, for people to watch."""

    records: int = 0
    invocations: int = 0
    errors: int = 0
    handed_back: int = 0
    behind_ms: int = 0
    last_error: str = ""


def failed_identifiers(payload: bytes, error: str | None, batch: Sequence[str]) -> list[str]:
    """The identifiers a function's answer hands back; empty is total success.

    As Lambda documents it: null, an empty object or an empty list is success. A function error, an
    answer that is not JSON, and an identifier that is empty, null or not in the batch fail the
    whole batch: they raise `AnswerError`. (For Kinesis an unknown number is undocumented; to
    retry all is the reading that loses nothing.)
    """
    if error is not None:
        raise AnswerError(f"function error {error}: {payload[:2_000].decode(errors='replace')}")
    try:
        answer = json.loads(payload or b"null")
    except ValueError:
        raise AnswerError("the answer is not JSON") from None
    if answer is None:
        return []
    failures = answer.get("batchItemFailures", []) if isinstance(answer, dict) else answer
    if failures is None:
        return []
    if not (isinstance(answer, dict) and isinstance(failures, list)):
        raise AnswerError(f"the answer holds no list batchItemFailures: {str(answer)[:200]}")
    known = set(batch)
    identifiers = []
    for failure in failures:
        identifier = failure.get("itemIdentifier") if isinstance(failure, dict) else None
        if not isinstance(identifier, str) or identifier not in known:
            raise AnswerError(f"the answer names {identifier!r}, which is not in the batch")
        identifiers.append(identifier)
    return identifiers


@dataclass
class _Shared:
    """What all pollers share: how to invoke, when to stop, and the tally."""

    function: str
    invoke: Invoke
    stop: threading.Event
    tally: Tally = field(default_factory=Tally)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def deliver(self, payload: bytes, identifiers: Sequence[str]) -> list[str]:
        """Invoke the function on a batch; what it handed back. Raises `AnswerError`."""
        with self.lock:
            self.tally.invocations += 1
        try:
            answer, error = self.invoke(self.function, payload)
            failed = failed_identifiers(answer, error, identifiers)
        except AnswerError as refused:
            with self.lock:
                self.tally.errors += 1
                self.tally.last_error = str(refused)
            raise
        with self.lock:
            self.tally.records += len(identifiers) - len(failed)
            self.tally.handed_back += len(failed)
        return failed


class StreamPoller:
    """One shard's poller. Its checkpoint is kept in a file, so that a restart goes on there."""

    def __init__(
        self, kinesis: Any, mapping: StreamMapping, shard: str, shared: _Shared, checkpoints: Path
    ) -> None:
        self._kinesis, self._mapping, self._shard, self._shared = kinesis, mapping, shard, shared
        self._file = checkpoints / f"{mapping.stream}.{shard}"
        self._arn = f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{mapping.stream}"
        self._iterator = ""
        self._buffer: list[dict[str, Any]] = []

    def run(self) -> None:
        """Poll until told to stop. A source or a function that fails is tried again, later."""
        pause = BACKOFF_FIRST_SECONDS
        while not self._shared.stop.is_set():
            try:
                batch = self._fill()
                if batch:
                    self._process(batch)
                pause = BACKOFF_FIRST_SECONDS
            except Exception as error:  # noqa: BLE001  a poller that ended would lose its source
                self._shared.tally.last_error = str(error)
                self._iterator = "" if not isinstance(error, AnswerError) else self._iterator
                self._shared.stop.wait(pause)
                pause = min(2 * pause, BACKOFF_MAX_SECONDS)

    def _fill(self) -> list[dict[str, Any]]:
        """The next batch: full by count or bytes, or what the window brought."""
        opened = time.monotonic() if self._buffer else 0.0
        while not self._shared.stop.is_set():
            taken = fitting(self._buffer, self._mapping.batch_size, _kinesis_bytes)
            full = taken and (taken < len(self._buffer) or taken == self._mapping.batch_size)
            if full or (self._buffer and time.monotonic() - opened >= self._mapping.window_seconds):
                return self._buffer[:taken]
            if not self._read():
                self._shared.stop.wait(IDLE_SECONDS)
            if self._buffer and not opened:
                opened = time.monotonic()
        return []

    def _read(self) -> int:
        if not self._iterator:
            self._iterator = self._open()
        answer = self._kinesis.get_records(ShardIterator=self._iterator, Limit=GET_RECORDS_MAX)
        self._iterator = answer.get("NextShardIterator", "")
        self._shared.tally.behind_ms = answer.get("MillisBehindLatest", 0)
        self._buffer.extend(answer["Records"])
        return len(answer["Records"])

    def _open(self) -> str:
        """An iterator behind what is buffered, else behind the checkpoint, else at the start."""
        if self._buffer:
            after = self._buffer[-1]["SequenceNumber"]
        else:
            after = self._file.read_text() if self._file.exists() else ""
        where: dict[str, str] = {"ShardIteratorType": "TRIM_HORIZON"}
        if after:
            where = {
                "ShardIteratorType": "AFTER_SEQUENCE_NUMBER",
                "StartingSequenceNumber": after,
            }
        answer = self._kinesis.get_shard_iterator(
            StreamName=self._mapping.stream, ShardId=self._shard, **where
        )
        return str(answer["ShardIterator"])

    def _process(self, batch: list[dict[str, Any]]) -> None:
        numbers = [record["SequenceNumber"] for record in batch]
        payload = kinesis_event(batch, self._shard, self._arn)
        failed = self._shared.deliver(payload, numbers)
        done = numbers.index(min(failed, key=int)) if failed else len(batch)
        if done:
            self._checkpoint(numbers[done - 1])
        del self._buffer[:done]
        if failed:
            raise AnswerError(f"handed back from {numbers[done]}")

    def _checkpoint(self, number: str) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(number)
        fresh.replace(self._file)


class QueuePoller:
    """One of a queue's pollers."""

    def __init__(self, sqs: Any, mapping: QueueMapping, url: str, shared: _Shared) -> None:
        self._sqs, self._mapping, self._url, self._shared = sqs, mapping, url, shared
        self._arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{mapping.queue}"
        self._buffer: list[tuple[dict[str, Any], int]] = []  # and their bytes in the event

    def run(self) -> None:
        """Poll until told to stop. Messages that are not deleted come back by themselves."""
        pause = BACKOFF_FIRST_SECONDS
        while not self._shared.stop.is_set():
            try:
                batch = self._fill()
                if batch:
                    self._process(batch)
                pause = BACKOFF_FIRST_SECONDS
            except Exception as error:  # noqa: BLE001  a poller that ended would lose its source
                self._shared.tally.last_error = str(error)
                self._shared.stop.wait(pause)
                pause = min(2 * pause, BACKOFF_MAX_SECONDS)

    def _fill(self) -> list[dict[str, Any]]:
        """The next batch: full by count or bytes, what the window brought, or all at the end.

        What was received and does not fit is kept for the batch after.
        """
        opened = time.monotonic() if self._buffer else 0.0
        while True:
            taken = fitting(self._buffer, self._mapping.batch_size, lambda held: held[1])
            full = taken and (taken < len(self._buffer) or taken == self._mapping.batch_size)
            waited = self._buffer and time.monotonic() - opened >= self._mapping.window_seconds
            if full or waited or self._shared.stop.is_set():
                batch = [message for message, _ in self._buffer[:taken]]
                del self._buffer[:taken]
                return batch
            if not self._receive(min(RECEIVE_MAX, self._mapping.batch_size - len(self._buffer))):
                self._shared.stop.wait(IDLE_SECONDS)
            if self._buffer and not opened:
                opened = time.monotonic()

    def _receive(self, most: int) -> int:
        answer = self._sqs.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=most,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        messages = answer.get("Messages", [])
        self._buffer.extend((message, len(sqs_event([message], self._arn))) for message in messages)
        return len(messages)

    def _process(self, batch: list[dict[str, Any]]) -> None:
        ids = [message["MessageId"] for message in batch]
        failed = set(self._shared.deliver(sqs_event(batch, self._arn), ids))
        done = [message for message in batch if message["MessageId"] not in failed]
        for at in range(0, len(done), RECEIVE_MAX):
            self._sqs.delete_message_batch(
                QueueUrl=self._url,
                Entries=[
                    {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                    for number, message in enumerate(done[at : at + RECEIVE_MAX])
                ],
            )


class Mappings:
    """The pollers of a pipeline's mappings, each in a thread of its own."""

    def __init__(self, invoke: Invoke) -> None:
        self._invoke = invoke
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.tallies: dict[str, Tally] = {}

    def poll_stream(self, kinesis: Any, mapping: StreamMapping, checkpoints: Path) -> None:
        """Start one poller for each shard the stream has now."""
        checkpoints.mkdir(parents=True, exist_ok=True)
        shared = self._shared("kinesis", mapping.function)
        for shard in kinesis.list_shards(StreamName=mapping.stream)["Shards"]:
            self._start(StreamPoller(kinesis, mapping, shard["ShardId"], shared, checkpoints).run)

    def poll_queue(self, sqs: Any, mapping: QueueMapping, url: str) -> None:
        """Start as many pollers as the mapping's maximum concurrency."""
        shared = self._shared("sqs", mapping.function)
        for _ in range(mapping.maximum_concurrency):
            self._start(QueuePoller(sqs, mapping, url, shared).run)

    def stop(self, timeout_seconds: float) -> None:
        """Let invocations in flight end, at most so long. Idempotent."""
        self._stop.set()
        until = time.monotonic() + timeout_seconds
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0))

    def _shared(self, source: str, function: str) -> _Shared:
        shared = _Shared(function, self._invoke, self._stop)
        self.tallies[source] = shared.tally
        return shared

    def _start(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self._threads.append(thread)


def fitting(records: Sequence[T], most: int, size: Callable[[T], int]) -> int:
    """How many of the first records one payload takes: at least one, if there is one."""
    room = PAYLOAD_MAX_BYTES
    for number, record in enumerate(records):
        room -= size(record)
        if number >= most or (room < 0 and number):
            return number
    return len(records)


def kinesis_event(records: Sequence[Mapping[str, Any]], shard: str, stream_arn: str) -> bytes:
    """The Lambda event of a Kinesis mapping, as JSON."""
    return orjson.dumps(
        {
            "Records": [
                {
                    "kinesis": {
                        "kinesisSchemaVersion": "1.0",
                        "partitionKey": record["PartitionKey"],
                        "sequenceNumber": record["SequenceNumber"],
                        "data": base64.b64encode(record["Data"]).decode(),
                        "approximateArrivalTimestamp": record[
                            "ApproximateArrivalTimestamp"
                        ].timestamp(),
                    },
                    "eventSource": "aws:kinesis",
                    "eventVersion": "1.0",
                    "eventID": f"{shard}:{record['SequenceNumber']}",
                    "eventName": "aws:kinesis:record",
                    "invokeIdentityArn": f"arn:aws:iam::{ACCOUNT}:role/millrace-local",
                    "awsRegion": REGION,
                    "eventSourceARN": stream_arn,
                }
                for record in records
            ]
        }
    )


def sqs_event(messages: Sequence[Mapping[str, Any]], queue_arn: str) -> bytes:
    """The Lambda event of an SQS mapping, as JSON."""
    return orjson.dumps(
        {
            "Records": [
                {
                    "messageId": message["MessageId"],
                    "receiptHandle": message["ReceiptHandle"],
                    "body": message["Body"],
                    "attributes": message.get("Attributes", {}),
                    "messageAttributes": {
                        name: _attribute(value)
                        for name, value in message.get("MessageAttributes", {}).items()
                    },
                    "md5OfBody": message["MD5OfBody"],
                    "eventSource": "aws:sqs",
                    "eventSourceARN": queue_arn,
                    "awsRegion": REGION,
                }
                for message in messages
            ]
        }
    )


def _attribute(value: Mapping[str, Any]) -> dict[str, Any]:
    """A message attribute as Lambda spells it: camel case, binary as base64."""
    spelled: dict[str, Any] = {"dataType": value["DataType"]}
    if "StringValue" in value:
        spelled["stringValue"] = value["StringValue"]
    if "BinaryValue" in value:
        spelled["binaryValue"] = base64.b64encode(value["BinaryValue"]).decode()
    return spelled


def _kinesis_bytes(record: Mapping[str, Any]) -> int:
    data = 4 * -(-len(record["Data"]) // 3)
    return data + len(orjson.dumps(record["PartitionKey"])) + RECORD_OVERHEAD_BYTES
