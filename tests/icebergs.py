"""Lakes to publish: files of given rows, as compaction would write them, and their manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from sinks import parquet
from sinks.bucket import Bucket
from sinks.lake import manifest
from sinks.lake.manifest import File, Manifest, Partition
from tests.support import NOON, SECOND
from transform.contract import Contract
from transform.tables import landing_schema

HOUR = NOON // SECOND // 3_600  # since 1970, the hour that begins at NOON
DEFAULTS: Mapping[pa.DataType, Any] = {
    pa.string(): "",
    pa.int64(): 0,
    pa.int32(): 0,
    pa.float64(): 0.0,
    pa.bool_(): False,
    pa.binary(16): b"\0" * 16,
    pa.timestamp("us", tz="UTC"): NOON,
}


@dataclass(frozen=True)
class Lake:
    """The lake of a contract in a bucket."""

    bucket: Bucket
    contract: Contract
    older: Sequence[Contract] = ()

    def file(self, hour: int, rows: Sequence[Mapping[str, Any]]) -> File:
        """Write rows as a lake file of an hour (since 1970), spread over it."""
        return self.put(
            hour, parquet.encode(table(self.contract, rows, hour, self.older)), len(rows)
        )

    def put(self, hour: int, data: bytes, rows: int) -> File:
        """Put a lake file of an hour."""
        digest = hashlib.sha256(data).hexdigest()
        key = f"lake/{self.contract.name}/data/{hour}/{digest}.parquet"
        self.bucket.put_absent(key, data)
        return File(key, rows, len(data), NOON, NOON, ("g",))

    def commit(self, hours: Mapping[int, Iterable[File]], **changes: Any) -> Manifest:
        """Make these files the lake's hours, beside the hours that are not named."""
        old = manifest.read(self.bucket, self.contract.name)
        named = {hour: _partition(hour, tuple(files)) for hour, files in hours.items()}
        kept = {**old.by_hour, **named}
        partitions = tuple(kept[hour] for hour in sorted(kept) if kept[hour].files)
        return manifest.commit(self.bucket, old, replace(old, partitions=partitions, **changes))


def table(
    contract: Contract,
    rows: Sequence[Mapping[str, Any]],
    hour: int = HOUR,
    older: Sequence[Contract] = (),
) -> pa.Table:
    """Rows of the landing schema, a second of event time apart; what is not given is nothing."""
    schema = landing_schema(contract, older)
    columns = []
    for field in schema:
        nothing = None if field.nullable else DEFAULTS[field.type]
        values = [row.get(field.name, nothing) for row in rows]
        if field.name == contract.event_time:
            start = hour * 3_600 * SECOND
            values = [start + number % 3_600 * SECOND for number in range(len(rows))]
        columns.append(pa.array(values, field.type))
    return pa.table(columns, schema=schema)


def _partition(hour: int, files: tuple[File, ...]) -> Partition:
    rows = sum(file.rows for file in files)
    return Partition(hour, rows, rows, 0, "0" * 16, files)
