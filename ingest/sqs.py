"""SQS event source mappings: their event as a Delivery, an Outcome as their answer."""

from __future__ import annotations

from typing import Any

import orjson

from ingest.events import missing, name_of, records_of
from transform.records import Delivery, Outcome

MILLIS = 1_000
FIFO = ".fifo"


def read(event: Any) -> Delivery:
    """The Delivery in an SQS event: bodies as UTF-8, message attributes as JSON, nothing opened.

    Raises `EventError` for what no mapping sends.
    """
    records = records_of(event, "aws:sqs")
    delivery = Delivery("sqs", "", [], [], [], [], [], [])
    stream = ""
    for number, record in enumerate(records):
        try:
            stream = name_of(record["eventSourceARN"])
            system = record["attributes"]
            delivery.sequences.append(record["messageId"])
            delivery.arrivals.append(int(system["SentTimestamp"]) * MILLIS)
            delivery.bodies.append(record["body"].encode("utf-8", "surrogatepass"))
        except KeyError as key:
            raise missing(number, key) from None
        own = record.get("messageAttributes")
        delivery.shards.append("")
        delivery.groups.append(system.get("MessageGroupId"))
        delivery.attributes.append(orjson.dumps(own).decode() if own else None)
    return Delivery(**{**vars(delivery), "stream": stream})


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
