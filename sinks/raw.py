"""`raw/`: every Delivery as it came. It is the log; all else is a projection of it."""

from __future__ import annotations

import pyarrow as pa

from sinks import parquet
from sinks.bucket import Bucket
from transform.records import Delivery

PREFIX = "raw"


def archive(bucket: Bucket, delivery: Delivery) -> str:
    """Write the Delivery as one object, one row per source record, and return its key."""
    return bucket.put_once(PREFIX, min(delivery.arrivals), parquet.encode(delivery.table()))


def read(bucket: Bucket, key: str, columns: list[str] | None = None) -> pa.Table:
    """A Delivery's raw table (`RAW_SCHEMA`)."""
    return parquet.decode(bucket.get(key), columns)
