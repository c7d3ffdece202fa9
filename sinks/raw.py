"""`raw/`: every Delivery as it came. It is the log; all else is a projection of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sinks import parquet
from sinks.bucket import Bucket
from sinks.deadline import Deadline
from transform.records import Delivery

if TYPE_CHECKING:
    import pyarrow as pa

PREFIX = "raw"


def archive(bucket: Bucket, delivery: Delivery, deadline: Deadline) -> str:
    """Write the Delivery as one object, one row per source record, and return its key."""
    data = parquet.encode(delivery.table())
    return bucket.put_once(PREFIX, min(delivery.arrivals), data, deadline)


def read(bucket: Bucket, key: str, columns: list[str] | None = None) -> pa.Table:
    """A Delivery's raw table (`RAW_SCHEMA`)."""
    return parquet.decode(bucket.get(key), columns)
