"""Kinesis event source mappings: their event as a Delivery, an Outcome as their answer."""

from __future__ import annotations

from itertools import repeat
from operator import itemgetter
from typing import Any

import pybase64

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
from transform.records import Delivery, Outcome

MILLIS = 1_000
SEQUENCE_DIGITS_MAX = 129  # the Kinesis API's; over 4,300 Python would not compare them


def read(event: Any) -> Delivery:
    """The Delivery in a Kinesis event, its bodies base64-decoded and otherwise unopened.

    Raises `EventError` for what no mapping sends. Data that is not base64 stays as its text, so
    that it is archived and quarantined and blocks nothing.
    """
    records = records_of(event, "aws:kinesis")
    try:
        return _ordinary(records)
    except ODD:
        return exactly(records)


def respond(delivery: Delivery, outcome: Outcome) -> dict[str, Any]:
    """The answer: only the lowest sequence number to be retried, as Lambda checkpoints there.

    Sequence numbers are compared as integers: their length varies, so text would sort wrongly.
    """
    retry = [delivery.sequences[index] for index in outcome.retry_indexes()]
    return {
        "batchItemFailures": [{"itemIdentifier": min(retry, key=int)}] if retry else [],
    }


def _ordinary(records: list[dict[str, Any]]) -> Delivery:
    """A column at a time; raises one of `ODD` where a record is not as Kinesis ever sends it."""
    (arn,) = {*map(itemgetter("eventSourceARN"), records)}
    kinesis = list(map(itemgetter("kinesis"), records))
    shards = _shards(list(map(itemgetter("eventID"), records)))
    sequences = list(map(itemgetter("sequenceNumber"), kinesis))
    groups = list(map(itemgetter("partitionKey"), kinesis))
    arrivals = [round(own["approximateArrivalTimestamp"] * MILLIS) for own in kinesis]
    data = list(map(itemgetter("data"), kinesis))
    _sequence(min(sequences, key=len))
    _sequence(max(sequences, key=len))
    if not "".join(sequences).encode().isdigit() or {*map(type, data)} != {str}:
        raise TypeError("a sequence number or data that only the definition can judge")
    if not all_plain_text([arn], shards, groups):
        raise ValueError("text beyond ASCII")
    return Delivery(
        source="kinesis",
        stream=name_of(arn),
        shards=shards,
        sequences=sequences,
        groups=groups,
        arrivals=all_micros(arrivals),
        attributes=[None] * len(records),
        bodies=list(map(pybase64.b64decode, data, repeat(None), repeat(object=True))),
        source_arn=arn,
    )


def _shards(ids: list[str]) -> list[str]:
    """Of which shard each event is: a Delivery's are of one."""
    shard = ids[0].partition(":")[0]
    if all(map(str.startswith, ids, repeat(f"{shard}:"))):
        return [shard] * len(ids)
    return [event_id.partition(":")[0] for event_id in ids]


def exactly(records: list[dict[str, Any]]) -> Delivery:
    """`read`, record by record: the definition, which says what is wrong with which."""
    delivery = Delivery("kinesis", "", [], [], [], [], [], [])
    arn = ""
    for number, record in enumerate(records):
        try:
            kinesis = record["kinesis"]
            arn = text(record["eventSourceARN"])
            delivery.shards.append(text(record["eventID"]).partition(":")[0])
            delivery.sequences.append(_sequence(kinesis["sequenceNumber"]))
            delivery.groups.append(text(kinesis["partitionKey"]))
            seconds = kinesis["approximateArrivalTimestamp"]
            delivery.arrivals.append(arrival_micros(round(seconds * MILLIS)))
            delivery.bodies.append(_data(kinesis["data"]))
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise malformed(number, error) from None
        delivery.attributes.append(None)
    return Delivery(**{**vars(delivery), "stream": name_of(arn), "source_arn": arn})


def _sequence(number: Any) -> str:
    """A sequence number, which the answer will compare: found out now, not after the work."""
    if not (isinstance(number, str) and number.isascii() and number.isdecimal()):
        raise TypeError(f"{number!r} is not a sequence number")
    if len(number) > SEQUENCE_DIGITS_MAX:
        raise ValueError(f"a sequence number of {len(number)} digits")
    return number


def _data(data: Any) -> bytes:
    if not isinstance(data, str):
        raise TypeError(f"data is {type(data).__name__}, not text")
    try:
        return pybase64.b64decode(data, validate=True)
    except ValueError:  # not base64, or not even ASCII
        return data.encode("utf-8", "surrogatepass")
