"""What Kinesis and SQS readers share: reaching into a Lambda event with an error that says where."""

from __future__ import annotations

from typing import Any


class EventError(ValueError):
    """An event that is not what its event source mapping sends. Raised, so the batch is retried:
    it is the function's wiring that is wrong, and no record of it may be acknowledged."""


def records_of(event: Any, source: str) -> list[dict[str, Any]]:
    """The event's `Records`, all of the given eventSource (`aws:kinesis`, `aws:sqs`)."""
    records = event.get("Records") if isinstance(event, dict) else None
    if not isinstance(records, list):
        raise EventError(
            f"the event has no list `Records`; this function is for an event source mapping of "
            f"{source}"
        )
    for number, record in enumerate(records):
        found = record.get("eventSource") if isinstance(record, dict) else None
        if found != source:
            raise EventError(f"Records[{number}].eventSource is {found!r}, not {source!r}")
    arns = {record.get("eventSourceARN") for record in records}
    if len(arns) > 1:
        raise EventError(f"the event mixes sources: {sorted(map(str, arns))}")
    return records


def missing(number: int, key: KeyError) -> EventError:
    return EventError(f"Records[{number}] has no {key}")


def name_of(arn: str) -> str:
    """A stream's or queue's name: the last part of its ARN."""
    return arn.rpartition("/")[2].rpartition(":")[2]
