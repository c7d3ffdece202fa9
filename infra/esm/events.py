"""The Lambda events of Kinesis and SQS mappings, and how many bytes of payload they take."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from ingest.events import attribute

PAYLOAD_MAX_BYTES = 6_291_456  # Lambda: a synchronous invocation's payload [aws.md 1.3, B]
ENVELOPE_BYTES = 20  # {"Records":[]} and some
RECORD_OVERHEAD_BYTES = 700  # of the event around a Kinesis record's data and key; AWS's own ~544

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Record:
    """A record as GetRecords returns it. `size_bytes` is what it takes of a payload.

    `sequence` is for comparing, as text "10" sorts under "9"; `identifier` is the same as it came:
    an emulator may pad it with zeros. `arrival` is in seconds since the epoch.
    """

    sequence: int
    identifier: str
    key: str
    data: bytes
    arrival: float
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Message:
    """A message as ReceiveMessage returns it: `entry` is its part of the event."""

    identifier: str
    receipt: str
    group: str | None
    entry: Mapping[str, Any]
    size_bytes: int


@dataclass(frozen=True)
class Place:
    """Where a mapping's records come from and go to, for the events' fields."""

    source_arn: str
    function_arn: str
    region: str
    role_arn: str
    shard: str = ""


def record(identifier: str, key: str, data: bytes, arrival: float) -> Record:
    """A Record with its size: base64 takes four bytes for three, a key is escaped as JSON."""
    size = 4 * ((len(data) + 2) // 3) + len(orjson.dumps(key)) + RECORD_OVERHEAD_BYTES
    return Record(int(identifier), identifier, key, data, arrival, size)


def message(received: Mapping[str, Any], place: Place) -> Message:
    """A Message of what ReceiveMessage returned, with its exact size in the event."""
    attributes = received.get("MessageAttributes", {})
    system = received.get("Attributes", {})
    entry = {
        "messageId": received["MessageId"],
        "receiptHandle": received["ReceiptHandle"],
        "body": received["Body"],
        "attributes": system,
        "messageAttributes": {name: attribute(value) for name, value in attributes.items()},
        "md5OfBody": received["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": place.source_arn,
        "awsRegion": place.region,
    }
    return Message(
        received["MessageId"],
        received["ReceiptHandle"],
        system.get("MessageGroupId"),
        entry,
        len(orjson.dumps(entry)) + 1,
    )


def fitting(items: Sequence[T], most: int, size: Callable[[T], int]) -> int:
    """How many of the first items one payload takes: at least one, if there is one.

    The one that is too large alone goes alone, for somebody to find out that it cannot be.
    """
    room = PAYLOAD_MAX_BYTES - ENVELOPE_BYTES
    for number, item in enumerate(items):
        room -= size(item)
        if number >= most or (room < 0 and number):
            return number
    return len(items)


def kinesis_event(records: Sequence[Record], place: Place) -> bytes:
    """The Lambda event of a Kinesis mapping, as JSON."""
    return orjson.dumps(
        {
            "Records": [
                {
                    "kinesis": {
                        "kinesisSchemaVersion": "1.0",
                        "partitionKey": record.key,
                        "sequenceNumber": record.identifier,
                        "data": base64.b64encode(record.data).decode(),
                        "approximateArrivalTimestamp": record.arrival,
                    },
                    "eventSource": "aws:kinesis",
                    "eventVersion": "1.0",
                    "eventID": f"{place.shard}:{record.identifier}",
                    "eventName": "aws:kinesis:record",
                    "invokeIdentityArn": place.role_arn,
                    "awsRegion": place.region,
                    "eventSourceARN": place.source_arn,
                }
                for record in records
            ]
        }
    )


def sqs_event(messages: Sequence[Message]) -> bytes:
    """The Lambda event of an SQS mapping, as JSON."""
    return orjson.dumps({"Records": [message.entry for message in messages]})
