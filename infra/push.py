"""Pushing messages as a producer does, and keeping the positions they were given.

What goes into a request, and again after it, is decided by the producer library; here a caller
waits until all is taken, or given up. A message counts as sent when, and only when, it was given a
position.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ingest.producer import Message, ProducerError, Queue, Stream
from ingest.producer.courier import Courier, Settled
from ingest.producer.destination import Destination

AGGREGATE_RECORDS_MAX = 100
CALL_BYTES = 5 * 1024 * 1024  # half of what PutRecords takes, to leave the shards room
ATTEMPTS_MAX = 10

TOGETHER = "unreadable/"
"""Partition keys that begin so share a shard, so that whoever reads it sees all of them."""

Keyed = tuple[str, bytes]
"""A partition key and a message."""


class PushError(ProducerError):
    """The source does not take a message."""


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
    """Put every message on a stream, plain or as KPL aggregates. Raises `ProducerError`."""
    destination = Stream(
        kinesis,
        stream,
        aggregate=aggregated,
        aggregate_messages_max=AGGREGATE_RECORDS_MAX,
        call_bytes=CALL_BYTES,
        placing=lambda key: 0 if key.startswith(TOGETHER) else None,
    )
    _send(destination, f"stream {stream}", messages, sent)


def to_queue(sqs: Any, url: str, messages: Iterable[Keyed], sent: Sent) -> None:
    """Send every message to a queue; in a FIFO queue the key is the group.

    Bodies must be text that SQS takes. Raises `ProducerError`.
    """
    destination = Queue(sqs, url)
    _send(destination, f"queue {destination.name}", messages, sent)


def _send(destination: Destination, where: str, messages: Iterable[Keyed], sent: Sent) -> None:
    courier, run = Courier(destination, random.uniform), uuid.uuid4().bytes
    for number, (key, data) in enumerate(messages):
        destination.check(key, data)  # of all, before the first is sent
        courier.add(Message(key, data, number, run))
    while (due := courier.due(0.0)) is not None:
        time.sleep(max(due - time.monotonic(), 0.0))
        batch = courier.next_batch(max(due, time.monotonic()))
        settled = courier.settle(batch, destination.send(batch), time.monotonic())
        for entry, at in settled.taken:
            sent.add(at.stream, at.shard, at.sequence, len(entry.messages))
        _require(settled, where)


def _require(settled: Settled, where: str) -> None:
    """Raises for what is refused for ever, or was refused too often."""
    for _, refusal in settled.refused:
        raise PushError(f"{where} refuses a message: {refusal.detail}")
    often = [entry for entry, _ in settled.failed if entry.attempts >= ATTEMPTS_MAX]
    if often:
        raise PushError(f"{where} refused {len(often)} messages {ATTEMPTS_MAX} times")
