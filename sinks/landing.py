"""`landing/` and `quarantine/`: what Transform made of a Delivery, one object each at most.

Both are Parquet with a declared schema, under the contract's name and the arrival hour, so the good
and the rejected are queried with the same tool.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from sinks import parquet
from sinks.bucket import Bucket
from sinks.deadline import Deadline
from transform.contract import Contract
from transform.records import Batch, ConservationError

LANDING = "landing"
QUARANTINE = "quarantine"
CONTRACT = b"millrace.contract"  # in a landing object's metadata: digest of the contract behind it


@dataclass(frozen=True)
class Landed:
    """What was written: keys (empty where there was nothing to write), rows and bytes."""

    landing_key: str
    landing_rows: int
    landing_bytes: int
    quarantine_key: str
    quarantine_rows: int


def write(bucket: Bucket, contract: Contract, batch: Batch, deadline: Deadline) -> Landed:
    """Make a Batch durable. Rows are counted from the footers of what was written.

    Quarantine first: a record is never reported as done before what was set aside is safe.
    """
    set_aside = _put(bucket, f"{QUARANTINE}/{contract.name}", batch.rejects, deadline)
    rows = batch.rows.replace_schema_metadata({CONTRACT: contract.digest})
    landed = _put(bucket, f"{LANDING}/{contract.name}", rows, deadline)
    if landed.rows != batch.rows.num_rows or set_aside.rows != batch.rejects.num_rows:
        raise ConservationError(f"written {landed.rows} + {set_aside.rows} rows of a batch")
    return Landed(
        landing_key=landed.key,
        landing_rows=landed.rows,
        landing_bytes=landed.size,
        quarantine_key=set_aside.key,
        quarantine_rows=set_aside.rows,
    )


def read(bucket: Bucket, key: str, columns: list[str] | None = None) -> pa.Table:
    """A landing object's rows, or some of its columns."""
    return parquet.decode(bucket.get(key), columns)


def open_(bucket: Bucket, key: str) -> Landing:
    """A landing object, whose metadata say by which contract to read it."""
    return Landing(key, bucket.get(key))


@dataclass(frozen=True)
class Landing:
    """A landing object's bytes, from which some columns will be read."""

    key: str
    data: bytes

    @property
    def contract_name(self) -> str:
        return self.key.split("/")[1]

    @property
    def contract_digest(self) -> str | None:
        """Of the contract that made the rows; None in objects from before it was noted."""
        noted = parquet.metadata_of(self.data).get(CONTRACT)
        return None if noted is None else noted.decode()

    def rows(self, columns: list[str]) -> pa.Table:
        return parquet.decode(self.data, columns)


@dataclass(frozen=True)
class _Object:
    key: str = ""
    rows: int = 0
    size: int = 0


def _put(bucket: Bucket, prefix: str, table: pa.Table, deadline: Deadline) -> _Object:
    if not table.num_rows:
        return _Object()
    data = parquet.encode(table)
    earliest = pc.min(table.column("_arrival")).cast(pa.int64()).as_py()
    key = bucket.put_once(prefix, earliest, data, deadline)
    return _Object(key, parquet.rows_in(data), len(data))
