"""Parked records as Deliveries: on-failure objects, dead letters, and what these only point at."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from ingest import kinesis, sqs
from ingest.events import EventError, arrival_micros, name_of
from ingest.parked import EMPTY_ANSWERS_MAX, RECEIVE_MAX, entry
from sinks.bucket import Bucket
from sinks.errors import translated
from sinks.fates import Place
from transform.records import Delivery

HIDDEN_SECONDS = 900  # for which a replay has the letters to itself
GET_RECORDS_MAX = 10_000
EXPIRED = frozenset({"InvalidArgumentException", "ResourceNotFoundException"})


@dataclass(frozen=True)
class Letter:
    """A message of a dead-letter queue, received and hidden."""

    url: str
    receipt: str


@dataclass(frozen=True)
class Rescue:
    """What one parked thing holds. `missing` records of it could not be had, `problem` says why."""

    delivery: Delivery
    letter: Letter | None = None
    problem: str = ""
    missing: int = 0


@dataclass
class Parking:
    """Where a pipeline's records are parked, and the clients to get at them.

    `letters` has the URL of the dead-letter queue by the name of the queue it is for. A `prefix` of
    None is a mapping without on-failure destination. Records of other streams are not ours.
    """

    bucket: Bucket
    stream: str
    prefix: str | None = None
    sqs: Any = None
    kinesis: Any = None
    letters: Mapping[str, str] = field(default_factory=dict)
    _held: list[tuple[Letter, frozenset[Place], bool]] = field(default_factory=list)

    def on_failure(self) -> Iterator[Rescue]:
        """The batches that the stream's mapping gave up, in the order of their objects' keys."""
        if self.prefix is None:
            return
        for key in self.bucket.keys(self.prefix):
            document = _document(self.bucket.get(key))
            if document is None:
                yield Rescue(_none("kinesis", ""), problem=f"{key} is no on-failure document")
            elif _stream(document) == self.stream:
                yield self._opened(document, key)

    def dead_letters(self) -> Iterator[Rescue]:
        """Every visible dead letter, hidden from others until `settle`."""
        for queue, url in self.letters.items():
            for message in self._received(url):
                letter = Letter(url, message["ReceiptHandle"])
                document = _document(message["Body"].encode("utf-8", "surrogatepass"))
                if document is None:
                    rescue = Rescue(sqs.read({"Records": [entry(message, queue)]}), letter)
                else:
                    where = f"dead letter {message['MessageId']}"
                    opened = self._opened(document, where)
                    rescue = Rescue(opened.delivery, letter, opened.problem, opened.missing)
                self._held.append((letter, _places(rescue.delivery), not rescue.missing))
                yield rescue

    def settle(self, has_fate: Callable[[Place], bool]) -> int:
        """Delete the letters whose records all have a fate; show the others again.

        Returns how many were deleted. A letter that points at records which are gone stays.
        """
        deleted = 0
        for letter, places, whole in self._held:
            call = {"QueueUrl": letter.url, "ReceiptHandle": letter.receipt}
            with translated(f"settle a dead letter of {letter.url}"):
                if whole and places and all(map(has_fate, places)):
                    self.sqs.delete_message(**call)
                    deleted += 1
                else:
                    self.sqs.change_message_visibility(**call, VisibilityTimeout=0)
        self._held.clear()
        return deleted

    def _received(self, url: str) -> Iterator[dict[str, Any]]:
        seen: set[str] = set()
        empty = 0
        while empty < EMPTY_ANSWERS_MAX:
            with translated(f"receive from {url}"):
                answer = self.sqs.receive_message(
                    QueueUrl=url,
                    MaxNumberOfMessages=RECEIVE_MAX,
                    VisibilityTimeout=HIDDEN_SECONDS,
                    MessageSystemAttributeNames=["All"],
                    MessageAttributeNames=["All"],
                )
            fresh = [m for m in answer.get("Messages", ()) if m["MessageId"] not in seen]
            empty = 0 if fresh else empty + 1
            seen.update(message["MessageId"] for message in fresh)
            yield from fresh

    def _opened(self, document: dict[str, Any], where: str) -> Rescue:
        if "payload" not in document:
            return self._rescued(document["KinesisBatchInfo"], where)
        try:
            return Rescue(kinesis.read(json.loads(document["payload"])))
        except (EventError, ValueError, TypeError) as error:
            return Rescue(_none("kinesis", self.stream), problem=f"{where}: {error}", missing=1)

    def _rescued(self, info: dict[str, Any], where: str) -> Rescue:
        """The records that a document only points at, from the stream while it has them."""
        stream, shard = name_of(info["streamArn"]), info["shardId"]
        delivery = _none("kinesis", stream)
        expected = int(info["batchSize"])
        if self.kinesis is not None:
            last = int(info["endSequenceNumber"])
            for record in self._from(stream, shard, info["startSequenceNumber"], last):
                arrival = round(record["ApproximateArrivalTimestamp"].timestamp() * 1_000)
                delivery.shards.append(shard)
                delivery.sequences.append(record["SequenceNumber"])
                delivery.groups.append(record["PartitionKey"])
                delivery.arrivals.append(arrival_micros(arrival))
                delivery.attributes.append(None)
                delivery.bodies.append(record["Data"])
        missing = max(expected - len(delivery), 0)
        problem = f"{where}: {missing} of {expected} records are no longer in {stream}"
        return Rescue(delivery, problem=problem if missing else "", missing=missing)

    def _from(self, stream: str, shard: str, first: str, last: int) -> Iterator[dict[str, Any]]:
        """Records of a shard from one sequence number to another, both included."""
        try:
            iterator = self.kinesis.get_shard_iterator(
                StreamName=stream,
                ShardId=shard,
                ShardIteratorType="AT_SEQUENCE_NUMBER",
                StartingSequenceNumber=first,
            )["ShardIterator"]
        except ClientError as error:
            if error.response["Error"]["Code"] not in EXPIRED:
                raise
            return
        while iterator:
            with translated(f"read {stream} {shard}"):
                answer = self.kinesis.get_records(ShardIterator=iterator, Limit=GET_RECORDS_MAX)
            for record in answer["Records"]:
                if int(record["SequenceNumber"]) > last:
                    return
                yield record
            if not answer["Records"] and not answer.get("MillisBehindLatest"):
                return
            if answer["Records"] and int(answer["Records"][-1]["SequenceNumber"]) == last:
                return
            iterator = answer.get("NextShardIterator")


def _document(data: bytes) -> dict[str, Any] | None:
    """An on-failure document, also out of SNS's envelope; None where it is none."""
    try:
        document = json.loads(data)
        if isinstance(document, dict) and document.get("Type") == "Notification":
            document = json.loads(document["Message"])
    except (ValueError, KeyError, TypeError):
        return None
    mine = isinstance(document, dict) and "requestContext" in document
    if not mine or not isinstance(document.get("KinesisBatchInfo"), dict):
        return None
    named = {"streamArn", "shardId", "startSequenceNumber", "endSequenceNumber", "batchSize"}
    return document if named <= document["KinesisBatchInfo"].keys() else None


def _stream(document: dict[str, Any]) -> str:
    return name_of(str(document["KinesisBatchInfo"]["streamArn"]))


def _places(delivery: Delivery) -> frozenset[Place]:
    streams = [delivery.stream] * len(delivery)
    return frozenset(zip(streams, delivery.shards, delivery.sequences, strict=True))


def _none(source: Any, stream: str) -> Delivery:
    return Delivery(source, stream, [], [], [], [], [], [])
