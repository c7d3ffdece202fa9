"""`landing/`, `quarantine/`, `dropped/`: what Transform made of a Delivery, an object each at most.

All are Parquet with a declared schema, under the contract's name and the arrival hour, so the good,
the rejected and the marks of what a rule dropped are queried with the same tool.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sinks import parquet
from sinks.bucket import Bucket
from sinks.deadline import Deadline
from transform.columns import least, whole
from transform.contract import Contract
from transform.records import POSITION, Batch, ConservationError

if TYPE_CHECKING:
    import pyarrow as pa

LANDING = "landing"
QUARANTINE = "quarantine"
DROPPED = "dropped"
CONTRACT = b"millrace.contract"  # in a landing object's metadata: digest of the contract behind it


@dataclass(frozen=True)
class Landed:
    """What was written: keys (empty where there was nothing to write), rows and bytes."""

    landing_key: str
    landing_rows: int
    landing_bytes: int
    quarantine_key: str
    quarantine_rows: int
    dropped_key: str
    dropped_rows: int

    @classmethod
    def nothing(cls) -> Landed:
        return cls("", 0, 0, "", 0, "", 0)


def write(bucket: Bucket, contract: Contract, batch: Batch, deadline: Deadline) -> Landed:
    """Make a Batch durable. Rows are counted from the footers of what was written.

    Landing last: a record is never reported as done before what was set aside is safe.
    """
    set_aside = _put(bucket, f"{QUARANTINE}/{contract.name}", batch.rejects, deadline)
    dropped = _put(bucket, f"{DROPPED}/{contract.name}", batch.drops, deadline)
    rows = batch.rows.replace_schema_metadata({CONTRACT: contract.digest})
    landed = _put(bucket, f"{LANDING}/{contract.name}", rows, deadline)
    written = (landed.rows, set_aside.rows, dropped.rows)
    if written != (batch.rows.num_rows, batch.rejects.num_rows, batch.drops.num_rows):
        raise ConservationError(f"written {written} rows of a batch")
    return Landed(
        landing_key=landed.key,
        landing_rows=landed.rows,
        landing_bytes=landed.size,
        quarantine_key=set_aside.key,
        quarantine_rows=set_aside.rows,
        dropped_key=dropped.key,
        dropped_rows=dropped.rows,
    )


def read(bucket: Bucket, key: str, columns: list[str] | None = None) -> pa.Table:
    """The rows of an object of Transform's, or some of its columns."""
    return parquet.decode(bucket.get(key), columns)


def indexes(bucket: Bucket, key: str) -> set[int]:
    """Which records of their raw object an object has rows of; none where the key is empty."""
    if not key:
        return set()
    return set(read(bucket, key, ["_index"]).column("_index").to_pylist())


def open_(bucket: Bucket, key: str) -> Landing:
    """A landing object, whose metadata say by which contract to read it."""
    return Landing(key, parquet.File(bucket.get(key)))


@dataclass(frozen=True)
class Landing:
    """A landing object, from which some columns will be read."""

    key: str
    file: parquet.File

    @property
    def contract_name(self) -> str:
        return self.key.split("/")[1]

    @property
    def contract_digest(self) -> str | None:
        """Of the contract that made the rows; None in objects from before it was noted."""
        noted = self.file.metadata.get(CONTRACT)
        return None if noted is None else noted.decode()

    @property
    def names(self) -> list[str]:
        return self.file.names

    def rows(self, columns: list[str]) -> pa.Table:
        return self.file.read(columns)

    def placed(self, columns: list[str]) -> pa.Table:
        """The same, where of positions only is asked which rows have the same: they are numbers."""
        return self.file.read_coded(columns, POSITION)

    def parts(self, columns: list[str], most: int) -> Iterator[pa.Table]:
        """The same rows, at most so many at a time."""
        return self.file.parts(columns, most)


@dataclass(frozen=True)
class _Object:
    key: str = ""
    rows: int = 0
    size: int = 0


def _put(bucket: Bucket, prefix: str, table: pa.Table, deadline: Deadline) -> _Object:
    if not table.num_rows:
        return _Object()
    data, rows = parquet.write(table)
    earliest = least(whole(table.column("_arrival")))
    assert earliest is not None  # noqa: S101  every row has an arrival
    key = bucket.put_once(prefix, earliest, data, deadline)
    return _Object(key, rows, len(data))
