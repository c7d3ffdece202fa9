"""The vocabulary: what flows through Millrace, and the columns it flows as.

    Delivery ──(ingest archives)──▶ raw object ──(transform)──▶ Batch ──▶ landing + quarantine
                                                                  └────▶ Outcome ──▶ answer

A *position* is where the source had a record: (stream, shard, sequence). For SQS the stream is the
queue, the shard is empty and the sequence is the message id. An *origin* is a row's way back to
its bytes: (raw object, index in it, sub-sequence in a KPL aggregate, child in an exploded message).
Both travel as columns, so that every outcome can name its record.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from transform.columns import numbers, repeated, texts

Source = Literal["kinesis", "sqs"]

Step = Literal["open", "envelope", "decode", "check"]
"""Where a record was rejected: before it was opened, opening its message, reading its JSON, or
judging its fields."""

Reason = Literal[
    "killer",  # open: Transform dies of it, and of nothing else
    "too_large",  # envelope: the body, or what a compressed one holds, is over the largest taken
    "malformed_aggregate",  # envelope: a KPL aggregate whose digest holds, but not its content
    "too_many_elements",  # envelope: more messages in a source record than are opened
    "bad_compression",  # envelope: gzip or zstd by its magic, but corrupt or cut off
    "bad_wrapper",  # envelope: SNS, EventBridge or CloudEvents as declared, but without a body
    "bad_senml",  # envelope: a SenML record that RFC 8428 does not allow, or of an unreadable base
    "no_records",  # envelope: an empty array, or NDJSON without a line
    "not_utf8",  # decode: the bytes are not UTF-8
    "malformed_json",  # decode: the text is not JSON
    "lone_surrogate",  # decode: half of a surrogate pair, which no UTF-8 column can hold
    "not_finite",  # decode: NaN or infinity, by name or by overflow of a double
    "not_an_object",  # decode: JSON, but not an object
    "missing_field",  # check: a required field is absent or null
    "wrong_type",  # check: a field holds another type than the contract's
    "out_of_range",  # check: a number outside the contract's range, or outside int64
    "not_allowed",  # check: a value that is not in the contract's list
    "bad_timestamp",  # check: text or number that names no moment
    "unknown_field",  # check: the contract takes no field that it does not name
    "no_value",  # check: a required field that is made of others came to nothing
    "no_readings",  # check: the list that would be exploded is empty
    "unknown_type",  # check: the message names a type that the contract has no case for
    "unknown_schema",  # check: the message names a version of the contract that is not here
    "future_time",  # check: event time too far beyond arrival
    "too_long",  # check: a device id that no DynamoDB key can hold
]

UTC_MICROS = pa.timestamp("us", tz="UTC")
DIGEST_BYTES = 16  # of BLAKE2b: identity compares equal ids only, so 128 bits are ample
DIGEST = pa.binary(DIGEST_BYTES)

POSITION = ("_stream", "_shard", "_sequence")
"""The columns that name a source record, the same in raw, landing and quarantine."""

RAW_SCHEMA = pa.schema(
    [
        pa.field("_source", pa.string(), nullable=False),  # kinesis or sqs
        pa.field("_stream", pa.string(), nullable=False),  # the stream's or queue's name
        pa.field("_shard", pa.string(), nullable=False),  # empty for SQS
        pa.field("_sequence", pa.string(), nullable=False),  # sequence number or message id
        pa.field("_partition_key", pa.string()),  # for a FIFO queue its message group
        pa.field("_arrival", UTC_MICROS, nullable=False),
        pa.field("_attributes", pa.string()),  # SQS message attributes, as JSON
        pa.field("_body", pa.binary(), nullable=False),
    ]
)
"""A raw object: one row per source record, in the order of the Delivery, exactly as it came."""

ROW_FIELDS = [
    pa.field("_record_id", pa.string(), nullable=False),
    pa.field("_digest", DIGEST, nullable=False),
    pa.field("_contract", pa.string(), nullable=False),
    pa.field("_stream", pa.string(), nullable=False),
    pa.field("_shard", pa.string(), nullable=False),
    pa.field("_sequence", pa.string(), nullable=False),
    pa.field("_arrival", UTC_MICROS, nullable=False),
    pa.field("_raw", pa.string(), nullable=False),
    pa.field("_index", pa.int32(), nullable=False),
    pa.field("_sub", pa.int32(), nullable=False),
    pa.field("_child", pa.int32(), nullable=False),
    pa.field("_elements", pa.int32(), nullable=False),  # rows that the source record came to
    pa.field("_epoch", pa.int32(), nullable=False),
    pa.field("_version", pa.int64(), nullable=False),
    pa.field("_generation", pa.string(), nullable=False),
]
"""What every landing row carries behind the contract's own fields and `_rescued`."""

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("_step", pa.string(), nullable=False),
        pa.field("_reason", pa.string(), nullable=False),
        pa.field("_field", pa.string()),  # the contract's field, where one is to blame
        pa.field("_detail", pa.string(), nullable=False),
        pa.field("_body", pa.binary(), nullable=False),  # the rejected element, whole
        pa.field("_partition_key", pa.string()),
        *(f for f in ROW_FIELDS if f.name != "_record_id"),
    ]
)
"""A quarantine object: one row per rejected element."""

DROPPED_SCHEMA = pa.schema(
    [
        pa.field("_rule", pa.string(), nullable=False),  # the contract's rule that dropped it
        *(f for f in ROW_FIELDS if f.name not in {"_record_id", "_digest"}),
    ]
)
"""A dropped object: one mark per element that a rule of the contract drops, without its bytes.

A record that is nowhere is lost, or was dropped: the mark tells which, to whoever counts and to
law 5, where an older epoch delivered what a greater one drops.
"""


@dataclass(frozen=True)
class Delivery:
    """What one Lambda invocation received, in order; every list has one entry per source record.

    `arrivals` are microseconds since 1970 UTC: Kinesis' ApproximateArrivalTimestamp or SQS'
    SentTimestamp. `groups` holds the partition key, or a FIFO queue's message group. `receipts` and
    `receives` are SQS' own, to give a message back by; they are not archived, nor is
    `source_arn`, by which the event source mapping is found.
    """

    source: Source
    stream: str
    shards: list[str]
    sequences: list[str]
    groups: list[str | None]
    arrivals: list[int]
    attributes: list[str | None]
    bodies: list[bytes]
    receipts: list[str] = field(default_factory=list)
    receives: list[int] = field(default_factory=list)
    source_arn: str = ""

    def __len__(self) -> int:
        return len(self.sequences)

    def table(self) -> pa.Table:
        """The Delivery as a raw table (`RAW_SCHEMA`)."""
        return pa.table(
            [
                repeated(self.source, pa.string(), len(self)),
                repeated(self.stream, pa.string(), len(self)),
                pa.array(self.shards, pa.string()),
                pa.array(self.sequences, pa.string()),
                pa.array(self.groups, pa.string()),
                numbers(self.arrivals, "q", UTC_MICROS),
                texts(self.attributes),
                pa.array(self.bodies, pa.binary()),
            ],
            schema=RAW_SCHEMA,
        )


@dataclass(frozen=True)
class Generation:
    """Which rules were applied to a record; `digest` is a column of every row they made.

    `version` orders generations within an epoch: the contract's version first, then the code's.
    """

    epoch: int
    version: int
    digest: str


@dataclass(frozen=True)
class Rejection:
    """Why an element can never be delivered under this generation."""

    step: Step
    reason: Reason
    detail: str
    field: str | None = None


@dataclass(frozen=True)
class Counts:
    """Source records by fate, one fate each: the worst of its rows."""

    received: int
    delivered: int
    dropped: int
    quarantined: int

    def __post_init__(self) -> None:
        if self.delivered + self.dropped + self.quarantined != self.received:
            raise ConservationError(f"counts do not add up: {self}")


@dataclass(frozen=True)
class Batch:
    """A Delivery after Transform: good rows and rejected rows, both with their origin.

    `rows` has the contract's landing schema, `rejects` is a quarantine table, `drops` a table of
    marks (`DROPPED_SCHEMA`); each may be empty.
    """

    rows: pa.Table
    rejects: pa.Table
    drops: pa.Table
    counts: Counts
    hot_rows: int


@dataclass(frozen=True)
class Outcome:
    """What became of a Delivery: how many source records went where, and which to hand back.

    `retry` holds half-open index ranges into the Delivery, ascending and disjoint.
    """

    received: int
    delivered: int
    dropped: int
    quarantined: int
    retry: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        done = self.delivered + self.dropped + self.quarantined
        if min(self.delivered, self.dropped, self.quarantined) < 0:
            raise ConservationError(f"a count is negative: {self}")
        if done + self.retried != self.received:
            raise ConservationError(f"the outcome does not add up: {self}")
        edges = [edge for span in self.retry for edge in span]
        if edges != sorted(edges) or any(a == b for a, b in self.retry):
            raise ConservationError(f"retry ranges overlap or are empty: {self.retry}")
        if edges and (edges[0] < 0 or edges[-1] > self.received):
            raise ConservationError(f"retry ranges lie outside the Delivery: {self.retry}")

    @property
    def retried(self) -> int:
        return sum(stop - start for start, stop in self.retry)

    @classmethod
    def all_retry(cls, received: int) -> Outcome:
        """Nothing of it is done: the whole Delivery goes back."""
        return cls(received, 0, 0, 0, ((0, received),) if received else ())

    def retry_indexes(self) -> list[int]:
        return [index for start, stop in self.retry for index in range(start, stop)]


class ConservationError(AssertionError):
    """Counts that must add up do not. It is a defect of Millrace: the Delivery is handed back."""
