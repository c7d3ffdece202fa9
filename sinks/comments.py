"""What catalogs say of columns: the contract's words and units, and ours of what we add."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

COMMENT_MAX_CHARACTERS = 255  # Glue: Column.Comment
DESCRIPTION_MAX_CHARACTERS = 2_048  # Glue: TableInput.Description

COMMENTS: Mapping[str, str] = {
    "_rescued": "Fields the contract does not name, as JSON",
    "_skew": "Arrival minus event time; negative where the device's clock is ahead [us]",
    "_late": "Whether it came later than the contract's limit of lateness",
    "_schema": "The contract version that read it",
    "_record_id": "The record's name: equal ids with equal digests are one record",
    "_digest": "Of the element's own bytes: equal ids with other digests are a conflict",
    "_contract": "The contract that judged it",
    "_source": "kinesis or sqs",
    "_stream": "Position: the stream's or queue's name",
    "_shard": "Position: the shard; empty for a queue",
    "_sequence": "Position: the sequence number or message id",
    "_partition_key": "Partition key, of a FIFO queue the message group",
    "_attributes": "SQS message attributes, as JSON",
    "_arrival": "When the source took it",
    "_raw": "Origin: the raw object it came from",
    "_index": "Origin: which source record of that object",
    "_sub": "Origin: which message of that source record",
    "_child": "Origin: which element of that message",
    "_elements": "How many rows the source record came to",
    "_epoch": "Rules: greater after a reprocess",
    "_version": "Rules: the contract's version, then the code's",
    "_generation": "Rules: digest of all that was applied",
    "_step": "Where it was rejected",
    "_reason": "Why it was rejected",
    "_field": "The contract's field that is to blame",
    "_detail": "What was found, in words",
    "_body": "The bytes, whole",
    "_rule": "The contract's rule that left it out",
}


def of_column(field: pa.Field, *, event_time: bool = False) -> str:
    """A column's description and unit, and of a time that it is UTC, as far as Glue takes them."""
    told = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    timed = str(field.type).startswith("timestamp")
    zone = "(event time, UTC)" if event_time else "(UTC)" if timed else ""
    said = told.get("description") or COMMENTS.get(field.name, "")
    whole = f"{described(said, told.get('unit', ''))} {zone}".strip()
    if len(whole) <= COMMENT_MAX_CHARACTERS:
        return whole
    return f"{whole[: COMMENT_MAX_CHARACTERS - len(zone) - 2].rstrip()}… {zone}".rstrip()


def described(description: str, unit: str) -> str:
    """A field's description and unit on one line: `Air temperature [Cel]`."""
    return " ".join(f"{description} [{unit}]".split() if unit else description.split())
