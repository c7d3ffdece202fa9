"""What is parked: records whose retry budget ended, in dead-letter queues and on-failure objects.

A parked record is counted, never a leak. A message that SQS redrives keeps its id, so its position
is that of the queue it came from. One that was moved back (`StartMessageMoveTask`) is a new message
with a new id: only the digest of its body tells what it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ingest import kinesis, sqs
from ingest.events import EventError, attribute, name_of
from sinks.bucket import Bucket
from sinks.errors import translated
from sinks.lake.watermark import Place
from transform.records import POSITION, RAW_SCHEMA

RECEIVE_MAX = 10  # SQS ReceiveMessage: messages a call
PEEK_SECONDS = 30  # for which a message is hidden at most, should the look be cut short
EMPTY_ANSWERS_MAX = 3  # a short poll asks some of SQS's servers, and may find nothing there

SCHEMA = pa.schema([*RAW_SCHEMA, pa.field("_where", pa.string(), nullable=False)])
"""A parked record as it came, as in raw, and the place that holds it."""


@dataclass(frozen=True)
class Pointer:
    """An on-failure document without its payload: only the stream still has these records."""

    stream: str
    shard: str
    first: int
    last: int
    records: int
    where: str


@dataclass(frozen=True)
class Parked:
    """Everything that is parked. `unreadable` names on-failure objects that AWS did not write."""

    rows: pa.Table
    pointers: tuple[Pointer, ...] = ()
    unreadable: tuple[str, ...] = ()

    def places(self) -> set[Place]:
        """The positions whose records are parked with their bytes."""
        columns = self.rows.select(POSITION).to_pydict()
        return set(zip(*columns.values(), strict=True))


NOTHING = Parked(SCHEMA.empty_table())


@dataclass
class Lookout:
    """Looks where records are parked, again and again; an on-failure object is read once.

    `queues` has the URL of the dead-letter queue by the name of the queue it is for. A `prefix` of
    None is a mapping without an on-failure destination.
    """

    bucket: Bucket
    prefix: str | None
    sqs: Any
    queues: Mapping[str, str]
    _read: dict[str, Parked] = field(default_factory=dict)

    def look(self) -> Parked:
        """What is parked now. Raises a `SinkError`."""
        return joined([*self._failures(), *(self._letters(q, u) for q, u in self.queues.items())])

    def _failures(self) -> Iterable[Parked]:
        if self.prefix is None:
            return []
        for key in self.bucket.keys(self.prefix):
            if key not in self._read:
                self._read[key] = on_failure(key, self.bucket.get(key))
        return self._read.values()

    def _letters(self, queue: str, url: str) -> Parked:
        return dead_letters(queue, peeked(self.sqs, url))


def on_failure(key: str, data: bytes) -> Parked:
    """What one object of an on-failure destination holds, or points at."""
    try:
        document = json.loads(data)
        info = document["KinesisBatchInfo"]
        if "payload" in document:
            delivery = kinesis.read(json.loads(document["payload"]))
            return Parked(_table(delivery.table(), key))
        pointer = Pointer(
            stream=name_of(info["streamArn"]),
            shard=info["shardId"],
            first=int(info["startSequenceNumber"]),
            last=int(info["endSequenceNumber"]),
            records=int(info["batchSize"]),
            where=key,
        )
    except (ValueError, KeyError, TypeError, EventError):
        return Parked(SCHEMA.empty_table(), unreadable=(key,))
    return Parked(SCHEMA.empty_table(), (pointer,))


def dead_letters(queue: str, messages: Iterable[Mapping[str, Any]]) -> Parked:
    """Messages of a dead-letter queue, under their positions in the queue they came from."""
    entries = [entry(one, queue) for one in messages]
    if not entries:
        return NOTHING
    delivery = sqs.read({"Records": entries})
    return Parked(_table(delivery.table(), f"the dead-letter queue of {queue}"))


def entry(message: Mapping[str, Any], queue: str) -> dict[str, Any]:
    """A received message as the mapping's event has it, under the queue that it was sent to."""
    return {
        "eventSource": "aws:sqs",
        "eventSourceARN": f"arn:aws:sqs:::{queue}",
        "messageId": message["MessageId"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {
            name: attribute(value) for name, value in message.get("MessageAttributes", {}).items()
        },
    }


def peeked(client: Any, url: str) -> list[dict[str, Any]]:
    """Every visible message of a queue, once; all are visible again afterwards.

    It counts as a receive of each, so it is for dead-letter queues, which redrive nothing.
    """
    expected = _waiting(client, url)
    found: dict[str, dict[str, Any]] = {}
    empty = 0
    try:
        while len(found) < expected and empty < EMPTY_ANSWERS_MAX:
            with translated(f"look into {url}"):
                answer = client.receive_message(
                    QueueUrl=url,
                    MaxNumberOfMessages=RECEIVE_MAX,
                    VisibilityTimeout=PEEK_SECONDS,
                    MessageSystemAttributeNames=["All"],
                    MessageAttributeNames=["All"],
                )
            fresh = {one["MessageId"]: one for one in answer.get("Messages", [])}
            empty = 0 if fresh.keys() - found.keys() else empty + 1
            found |= fresh
    finally:
        _show(client, url, [one["ReceiptHandle"] for one in found.values()])
    return list(found.values())


def joined(parts: Iterable[Parked]) -> Parked:
    """Several places as one."""
    all_parts = [NOTHING, *parts]
    return Parked(
        pa.concat_tables([part.rows for part in all_parts]),
        tuple(pointer for part in all_parts for pointer in part.pointers),
        tuple(key for part in all_parts for key in part.unreadable),
    )


def _table(rows: pa.Table, where: str) -> pa.Table:
    column = pa.repeat(pa.scalar(where, pa.string()), rows.num_rows)
    return pa.table([*rows.columns, column], schema=SCHEMA)


def _waiting(client: Any, url: str) -> int:
    with translated(f"ask {url}"):
        answer = client.get_queue_attributes(
            QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"]
        )
    return int(answer["Attributes"]["ApproximateNumberOfMessages"])


def _show(client: Any, url: str, receipts: list[str]) -> None:
    for at in range(0, len(receipts), RECEIVE_MAX):
        with translated(f"show the messages of {url} again"):
            client.change_message_visibility_batch(
                QueueUrl=url,
                Entries=[
                    {"Id": str(number), "ReceiptHandle": receipt, "VisibilityTimeout": 0}
                    for number, receipt in enumerate(receipts[at : at + RECEIVE_MAX])
                ],
            )
