"""What Kinesis and SQS readers share: reaching into a Lambda event, with errors that say where."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

ARRIVAL_MAX_MILLIS = 253_402_300_799_999  # the last moment of the year 9999
MICROS_PER_MILLI = 1_000

ODD = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What reaching into a record raises that is not as its source ever sends it."""


class EventError(ValueError):
    """An event that is not what its event source mapping sends.

    Raised, so the batch is retried: it is the function's wiring that is wrong, and no record of it
    may be acknowledged.
    """


def records_of(event: Any, source: str) -> list[dict[str, Any]]:
    """The event's `Records`, all of the given eventSource (`aws:kinesis`, `aws:sqs`)."""
    records = event.get("Records") if isinstance(event, dict) else None
    if not isinstance(records, list):
        raise EventError(
            f"the event has no list `Records`; this function is for an event source mapping of "
            f"{source}"
        )
    if _all_of(records, source):
        return records
    for number, record in enumerate(records):
        found = record.get("eventSource") if isinstance(record, dict) else None
        if found != source:
            raise EventError(f"Records[{number}].eventSource is {found!r}, not {source!r}")
    arns = {str(record.get("eventSourceARN")) for record in records}
    if len(arns) > 1:
        raise EventError(f"the event mixes sources: {sorted(arns)}")
    return records


def _all_of(records: list[Any], source: str) -> bool:
    """Whether all are of the one source, and one ARN, as columns. False says nothing."""
    try:
        sources = {*map(itemgetter("eventSource"), records)}
        arns = {*map(itemgetter("eventSourceARN"), records)}
    except (KeyError, TypeError):
        return False
    one = len(arns) == 1 and isinstance(next(iter(arns)), str)
    return one and sources == {source} and {*map(type, records)} == {dict}


def malformed(number: int, error: Exception) -> EventError:
    """What reaching into `Records[number]` failed with, as an error that says where."""
    if isinstance(error, KeyError):
        return EventError(f"Records[{number}] has no {error}")
    return EventError(f"Records[{number}] is malformed: {error}")


def name_of(arn: str) -> str:
    """A stream's or queue's name out of its ARN, or out of the ARN of a stream's consumer."""
    resource = arn.rpartition(":stream/")[2]
    return resource.partition("/")[0] if resource != arn else arn.rpartition(":")[2]


def text(value: Any) -> str:
    """`value` if it is text. Half a surrogate pair, which no column can hold, is kept escaped."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()


def all_plain_text(*columns: list[str]) -> bool:
    """Whether `text` would leave all of these as they are. Raises `TypeError` where one is none."""
    return all("".join(column).isascii() for column in columns)


def all_micros(arrivals: list[int]) -> list[int]:
    """`arrival_micros` of every one; none of them may be missing."""
    arrival_micros(min(arrivals))
    arrival_micros(max(arrivals))
    return [millis * MICROS_PER_MILLI for millis in arrivals]


def arrival_micros(millis: int) -> int:
    """An arrival in milliseconds since 1970 as microseconds."""
    if not 0 <= millis <= ARRIVAL_MAX_MILLIS:
        raise ValueError(f"{millis} ms since 1970 is no arrival")
    return millis * MICROS_PER_MILLI


def attribute(value: Mapping[str, Any]) -> dict[str, Any]:
    """An SQS message's attribute as Lambda spells it: camel case, binary as base64."""
    spelled: dict[str, Any] = {"dataType": value["DataType"]}
    if "StringValue" in value:
        spelled["stringValue"] = value["StringValue"]
    if "BinaryValue" in value:
        spelled["binaryValue"] = base64.b64encode(value["BinaryValue"]).decode()
    return spelled
