"""SQS event source mappings: their event as a Delivery, an Outcome as their answer."""

from __future__ import annotations

import json
from typing import Any

from ingest.events import (
    ODD,
    all_micros,
    all_plain_text,
    arrival_micros,
    malformed,
    name_of,
    records_of,
    text,
)
from ingest.limits import FIFO
from transform.records import Delivery, Outcome


def read(event: Any) -> Delivery:
    """The Delivery in an SQS event: bodies as UTF-8, message attributes as JSON, nothing opened.

    Raises `EventError` for what no mapping sends.
    """
    records = records_of(event, "aws:sqs")
    try:
        return _ordinary(records)
    except ODD:
        return exactly(records)


def respond(delivery: Delivery, outcome: Outcome) -> dict[str, Any]:
    """The answer: each message to be retried and no other.

    In a FIFO queue also all that came behind one in its group, or they would overtake it.
    """
    retry = set(outcome.retry_indexes())
    if delivery.stream.endswith(FIFO):
        blocked: set[str | None] = set()
        for index, group in enumerate(delivery.groups):
            if index in retry or group in blocked:
                blocked.add(group)
                retry.add(index)
    return {
        "batchItemFailures": [{"itemIdentifier": delivery.sequences[i]} for i in sorted(retry)],
    }


def _ordinary(records: list[dict[str, Any]]) -> Delivery:
    """A column at a time; raises one of `ODD` where a record is not as SQS ever sends it."""
    (arn,) = {record["eventSourceARN"] for record in records}
    systems = [record["attributes"] for record in records]
    sequences = [record["messageId"] for record in records]
    groups = [system.get("MessageGroupId") for system in systems]
    receipts = [record.get("receiptHandle", "") for record in records]
    attributes = [record.get("messageAttributes") for record in records]
    if not all(sequences) or not all_plain_text([arn], sequences, receipts):
        raise ValueError("text beyond ASCII, or a message without an id")
    if not all_plain_text([group for group in groups if group is not None]):
        raise ValueError("a group beyond ASCII")
    return Delivery(
        source="sqs",
        stream=name_of(arn),
        shards=[""] * len(records),
        sequences=sequences,
        groups=groups,
        arrivals=all_micros([int(system["SentTimestamp"]) for system in systems]),
        attributes=[_json(own) if own else None for own in attributes],
        bodies=[record["body"].encode("utf-8", "surrogatepass") for record in records],
        receipts=receipts,
        receives=[int(system.get("ApproximateReceiveCount", 1)) for system in systems],
        source_arn=arn,
    )


def exactly(records: list[dict[str, Any]]) -> Delivery:
    """`read`, record by record: the definition, which says what is wrong with which."""
    delivery = Delivery("sqs", "", [], [], [], [], [], [])
    arn = ""
    for number, record in enumerate(records):
        try:
            arn = text(record["eventSourceARN"])
            system = record["attributes"]
            group = system.get("MessageGroupId")
            delivery.sequences.append(_message_id(record["messageId"]))
            delivery.groups.append(None if group is None else text(group))
            delivery.arrivals.append(arrival_micros(int(system["SentTimestamp"])))
            delivery.bodies.append(record["body"].encode("utf-8", "surrogatepass"))
            delivery.receipts.append(text(record.get("receiptHandle", "")))
            delivery.receives.append(int(system.get("ApproximateReceiveCount", 1)))
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise malformed(number, error) from None
        own = record.get("messageAttributes")
        delivery.shards.append("")
        delivery.attributes.append(_json(own) if own else None)
    return Delivery(**{**vars(delivery), "stream": name_of(arn), "source_arn": arn})


def _message_id(value: Any) -> str:
    """A message id, which the answer must name exactly as it came: found out before the work."""
    if not value or text(value) != value:
        raise TypeError(f"{value!r} is not a message id")
    return str(value)


def _json(value: Any) -> str:
    """As ASCII, so that half a surrogate pair in an attribute cannot stop its Delivery."""
    return json.dumps(value, separators=(",", ":"))
