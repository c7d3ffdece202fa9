"""Pushing messages as a producer does, and keeping the positions they were given.

PutRecords and SendMessageBatch answer for each entry: only those that failed are sent again, and a
message counts as sent when, and only when, it was given a position.
"""

from __future__ import annotations

import hashlib
import random
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from transform.kpl import ENTRY_OVERHEAD_BYTES, KPL_OVERHEAD_BYTES, aggregate

PUT_RECORDS_MAX = 500  # Kinesis PutRecords: entries a call
PUT_BYTES_MAX = 5 * 1024 * 1024  # half of what PutRecords takes, to leave the shards room
RECORD_MAX_BYTES = 1_048_576  # Kinesis: a record with its partition key, by default
AGGREGATE_BYTES_MAX = 51_200  # KPL's own default
AGGREGATE_RECORDS_MAX = 100
SEND_MAX = 10  # SQS SendMessageBatch: entries a call
SEND_BYTES_MAX = 1_048_576  # SQS SendMessageBatch: the sum of its bodies, and a single one
GROUP = re.compile(r"[!-~]{1,128}")  # SQS MessageGroupId: letters, digits and punctuation
BACKOFF_FIRST_SECONDS = 0.05
BACKOFF_MAX_SECONDS = 2.0
ATTEMPTS_MAX = 10

T = TypeVar("T")

TOGETHER = "unreadable/"
"""Partition keys that begin so share a shard, so that whoever reads it sees all of them."""

Keyed = tuple[str, bytes]
"""A partition key and a message."""


class PushError(RuntimeError):
    """A message that the source will not take; it was not sent."""


@dataclass
class Sent:
    """Positions of what was sent, and how many messages each holds. Columns of equal length."""

    streams: list[str] = field(default_factory=list)
    shards: list[str] = field(default_factory=list)
    sequences: list[str] = field(default_factory=list)
    messages: list[int] = field(default_factory=list)

    def add(self, stream: str, shard: str, sequence: str, messages: int) -> None:
        self.streams.append(stream)
        self.shards.append(shard)
        self.sequences.append(sequence)
        self.messages.append(messages)

    def extend(self, other: Sent) -> None:
        self.streams += other.streams
        self.shards += other.shards
        self.sequences += other.sequences
        self.messages += other.messages

    def places(self) -> Iterator[tuple[str, str, str]]:
        """The positions: stream, shard, sequence."""
        return zip(self.streams, self.shards, self.sequences, strict=True)

    def total(self) -> int:
        return sum(self.messages)


def to_stream(
    kinesis: Any, stream: str, messages: Iterable[Keyed], sent: Sent, *, aggregated: bool = False
) -> None:
    """Put every message on a stream, plain or as KPL aggregates. Raises `PushError`."""
    records = aggregates(messages) if aggregated else ((key, data, 1) for key, data in messages)
    # All sizes are looked at before the first record is sent.
    for batch in list(_batches(records, PUT_RECORDS_MAX, PUT_BYTES_MAX, _record_bytes)):

        def put(entries: Sequence[tuple[str, bytes, int]]) -> list[tuple[str, bytes, int]]:
            answer = kinesis.put_records(
                StreamName=stream,
                Records=[_entry(key, data) for key, data, _ in entries],
            )
            failed = []
            for entry, result in zip(entries, answer["Records"], strict=True):
                if "SequenceNumber" in result:
                    sent.add(stream, result["ShardId"], result["SequenceNumber"], entry[2])
                else:
                    failed.append(entry)
            return failed

        _until_taken(put, batch, f"stream {stream}")


def _entry(key: str, data: bytes) -> dict[str, Any]:
    entry = {"PartitionKey": key, "Data": data}
    return entry | {"ExplicitHashKey": "0"} if key.startswith(TOGETHER) else entry


def to_queue(sqs: Any, queue: str, url: str, messages: Iterable[Keyed], sent: Sent) -> None:
    """Send every message to a queue. Bodies must be text that SQS takes. Raises `PushError`."""
    # All sizes are looked at before the first message is sent.
    for batch in list(_batches(messages, SEND_MAX, SEND_BYTES_MAX, _message_bytes)):

        def send(entries: Sequence[dict[str, str]]) -> list[dict[str, str]]:
            answer = sqs.send_message_batch(QueueUrl=url, Entries=entries)
            for success in answer.get("Successful", []):
                sent.add(queue, "", success["MessageId"], 1)
            failures = answer.get("Failed", [])
            for failure in failures:
                if failure.get("SenderFault"):
                    raise PushError(f"queue {queue} refuses a message: {failure.get('Message')}")
            failed = {failure["Id"] for failure in failures}
            return [entry for entry in entries if entry["Id"] in failed]

        _until_taken(send, _entries(batch, fifo=queue.endswith(".fifo")), f"queue {queue}")


def _entries(messages: Sequence[Keyed], *, fifo: bool) -> list[dict[str, str]]:
    """SendMessageBatch entries. In a FIFO queue the key is the group, or names it by its digest.

    They are made once: what is sent again keeps its deduplication id, or an entry whose answer was
    lost would count twice.
    """
    entries = []
    for number, (key, data) in enumerate(messages):
        entry = {"Id": str(number), "MessageBody": data.decode()}
        if fifo:
            entry |= {"MessageGroupId": _group(key), "MessageDeduplicationId": uuid.uuid4().hex}
        entries.append(entry)
    return entries


def _group(key: str) -> str:
    if GROUP.fullmatch(key):
        return key
    return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


def aggregates(messages: Iterable[Keyed]) -> Iterator[tuple[str, bytes, int]]:
    """Messages as KPL aggregates: partition key, bytes, and how many are in it.

    One aggregate's messages share its shard, so each goes under the key of its first message.
    """

    def size(message: Keyed) -> int:
        return len(message[0]) + len(message[1]) + ENTRY_OVERHEAD_BYTES

    limit = AGGREGATE_BYTES_MAX - KPL_OVERHEAD_BYTES
    for batch in _batches(messages, AGGREGATE_RECORDS_MAX, limit, size):
        yield batch[0][0], aggregate(batch), len(batch)


def _batches(
    items: Iterable[T], most: int, most_bytes: int, size: Callable[[T], int]
) -> Iterator[list[T]]:
    """Items in batches of at most `most` and `most_bytes`; one that is larger goes alone."""
    batch: list[T] = []
    room = most_bytes
    for item in items:
        needed = size(item)
        if batch and (len(batch) == most or needed > room):
            yield batch
            batch, room = [], most_bytes
        batch.append(item)
        room -= needed
    if batch:
        yield batch


def _until_taken(send: Callable[[Sequence[T]], list[T]], batch: Sequence[T], where: str) -> None:
    pause = BACKOFF_FIRST_SECONDS
    for _ in range(ATTEMPTS_MAX):
        batch = send(batch)
        if not batch:
            return
        time.sleep(random.uniform(0, pause))
        pause = min(2 * pause, BACKOFF_MAX_SECONDS)
    raise PushError(f"{where} refused {len(batch)} messages {ATTEMPTS_MAX} times")


def _record_bytes(record: tuple[str, bytes, int]) -> int:
    size = len(record[0].encode()) + len(record[1])
    if size > RECORD_MAX_BYTES:
        raise PushError(
            f"a record of {size} bytes with its key {record[0]!r}; a stream takes "
            f"{RECORD_MAX_BYTES}"
        )
    return size


def _message_bytes(message: Keyed) -> int:
    if len(message[1]) > SEND_BYTES_MAX:
        raise PushError(f"a message of {len(message[1])} bytes; a queue takes {SEND_BYTES_MAX}")
    return len(message[1])
