"""A Kinesis stream to send to, plain or in KPL aggregates."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ingest.producer.messages import Answer, Entry, Message, Position, Refusal, Unsendable
from transform.kpl import Aggregate

PUT_RECORDS_MAX = 500  # PutRecords: entries a call; its limit of 10 MiB is far above `call_bytes`
RECORD_BYTES_MAX = 1_048_576  # a record with its key, until UpdateMaxRecordSize
KEY_MAX_CHARACTERS = 256  # of a partition key
CALL_BYTES = 1_048_576  # what a shard takes in a second: more is refused and goes twice
AGGREGATE_BYTES = 51_200  # KPL's own default
AGGREGATE_MESSAGES_MAX = 1 << 30  # KPL's own default is as good as none
HASH_KEYS = 1 << 128  # a partition key's MD5, by which Kinesis finds the shard
LANES = 16

Placing = Callable[[str], int | None]
"""Where a partition key's messages go: an explicit hash key, or None for the key's own MD5."""


@dataclass(frozen=True)
class Stream:
    """A Kinesis stream, by its name; `client` is boto3's.

    Messages travel in KPL aggregates unless `aggregate` is false: many times fewer records to pay
    for and to be throttled by. An aggregate lies in one place of the stream, so its messages come
    from one lane: one of `lanes` equal parts of all hash keys. A message then lies in the shard
    where it would lie alone, as long as the shards are equal parts and as many as the lanes, or
    half as many, and so on: take as many lanes as the stream has shards, or a multiple.

    With `together` everything goes where this one key belongs. That is for a gateway among many:
    their names spread the fleet over the shards, and a device's order is kept, because it reports
    behind one gateway.

    `ordered` keeps the order of a lane, or plain of a key, whatever fails: a request has one entry
    of it, and what comes behind waits. Aggregated this costs next to nothing and is the default.
    Plain it is one message a request for each key; without it, what was refused alone comes behind
    others of its request.
    """

    client: Any
    name: str
    aggregate: bool = True
    together: str | None = None
    lanes: int = LANES
    ordered: bool | None = None
    record_bytes_max: int = RECORD_BYTES_MAX
    call_bytes: int = CALL_BYTES
    aggregate_bytes: int = AGGREGATE_BYTES
    aggregate_messages_max: int = AGGREGATE_MESSAGES_MAX
    placing: Placing | None = None

    entries_max = PUT_RECORDS_MAX

    def __post_init__(self) -> None:
        if self.call_bytes < self.record_bytes_max:
            raise ValueError("call_bytes is under record_bytes_max: the largest has no request")
        if self.lanes < 1:
            raise ValueError("a stream has at least one lane")

    @property
    def in_order(self) -> bool:
        return self.aggregate if self.ordered is None else self.ordered

    def full(self, messages: int, size: int) -> bool:
        if not self.aggregate:
            return messages >= PUT_RECORDS_MAX or size >= self.call_bytes
        lanes = self.lanes if self.together is None and self.in_order else 1
        return size >= min(lanes * self.aggregate_bytes, self.call_bytes)

    def check(self, key: str, data: bytes) -> None:
        if not 1 <= len(key) <= KEY_MAX_CHARACTERS:
            raise Unsendable(
                f"a partition key of {len(key)} characters; Kinesis takes 1 to "
                f"{KEY_MAX_CHARACTERS}: use the device's name, or a digest of it"
            )
        size = len(key.encode()) + len(data)
        if size > self.record_bytes_max:
            raise Unsendable(
                f"a record of {size} bytes with its key {key!r}; a stream takes "
                f"{self.record_bytes_max}: split it, compress it, or put it into S3 and send its "
                "address"
            )

    def group(self, key: str) -> str:
        if self.aggregate:
            return str(self._lane(key))
        return key if self.in_order else ""

    def pack(self, group: str, waiting: deque[Message], room: int) -> Entry | None:
        key = waiting[0].key
        key_bytes = len(key.encode())
        if key_bytes + len(waiting[0].data) > room:
            return None
        if self.aggregate:
            data, members = self._aggregated(waiting, min(self.aggregate_bytes, room - key_bytes))
            place: str | None = self._middle(group)
        else:
            members = [waiting.popleft()]
            data, place = members[0].data, self._place(key)
        return Entry(group, key, data, key_bytes + len(data), members, place)

    def _aggregated(self, waiting: deque[Message], most: int) -> tuple[bytes, list[Message]]:
        """As many messages as fit. One that is alone needs no aggregate around it."""
        made = Aggregate()
        members: list[Message] = []
        while waiting and len(members) < self.aggregate_messages_max:
            if not made.put(waiting[0].key, waiting[0].data, most):
                break
            members.append(waiting.popleft())
        return made.pack() if len(members) > 1 else members[0].data, members

    def send(self, entries: Sequence[Entry]) -> list[Answer]:
        answer = self.client.put_records(
            StreamName=self.name, Records=[_request(entry) for entry in entries]
        )
        return [self._answer(result) for result in answer["Records"]]

    def _answer(self, result: dict[str, str]) -> Answer:
        if "SequenceNumber" in result:
            return Position(self.name, result["ShardId"], result["SequenceNumber"])
        return Refusal(result.get("ErrorCode", ""), result.get("ErrorMessage", ""))

    def _place(self, key: str) -> str | None:
        placed = None if self.placing is None else self.placing(key)
        return None if placed is None else str(placed)

    def _lane(self, key: str) -> int:
        if self.together is not None:
            return 0
        placed = None if self.placing is None else self.placing(key)
        return (hash_key(key) if placed is None else placed) * self.lanes // HASH_KEYS

    def _middle(self, lane: str) -> str:
        """The hash key of a lane: its middle, which stays in one shard where shards are split."""
        if self.together is not None:
            return str(hash_key(self.together))
        return str((2 * int(lane) + 1) * HASH_KEYS // (2 * self.lanes))


def hash_key(key: str) -> int:
    """Where Kinesis puts a partition key."""
    return int.from_bytes(hashlib.md5(key.encode(), usedforsecurity=False).digest(), "big")


def _request(entry: Entry) -> dict[str, Any]:
    request: dict[str, Any] = {"PartitionKey": entry.key, "Data": entry.data}
    return request if entry.hash_key is None else request | {"ExplicitHashKey": entry.hash_key}
