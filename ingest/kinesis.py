"""Kinesis event source mappings: their event as a Delivery, an Outcome as their answer."""

from __future__ import annotations

import binascii
from typing import Any

import pybase64

from ingest.events import missing, name_of, records_of
from transform.records import Delivery, Outcome

MILLIS = 1_000


def read(event: Any) -> Delivery:
    """The Delivery in a Kinesis event, its bodies base64-decoded and otherwise unopened.

    Raises `EventError` for what no mapping sends. Data that is not base64 stays as its text, so
    that it is archived and quarantined and blocks nothing.
    """
    records = records_of(event, "aws:kinesis")
    delivery = Delivery("kinesis", "", [], [], [], [], [], [])
    stream = ""
    for number, record in enumerate(records):
        try:
            kinesis = record["kinesis"]
            stream = name_of(record["eventSourceARN"])
            delivery.shards.append(record["eventID"].partition(":")[0])
            delivery.sequences.append(kinesis["sequenceNumber"])
            delivery.groups.append(kinesis["partitionKey"])
            seconds = kinesis["approximateArrivalTimestamp"]
            delivery.bodies.append(_data(kinesis["data"]))
        except KeyError as key:
            raise missing(number, key) from None
        delivery.arrivals.append(round(seconds * MILLIS) * MILLIS)
        delivery.attributes.append(None)
    return Delivery(**{**vars(delivery), "stream": stream})


def respond(delivery: Delivery, outcome: Outcome) -> dict[str, Any]:
    """The answer: only the lowest sequence number to be retried, as Lambda checkpoints there.

    Sequence numbers are compared as integers: their length varies, so text would sort wrongly.
    """
    retry = [delivery.sequences[index] for index in outcome.retry_indexes()]
    return {
        "batchItemFailures": [{"itemIdentifier": min(retry, key=int)}] if retry else [],
    }


def _data(text: str) -> bytes:
    try:
        return pybase64.b64decode(text, validate=True)
    except binascii.Error:
        return text.encode("utf-8", "surrogatepass")
