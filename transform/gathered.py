"""What becomes of a Delivery's elements, gathered: rows, rejects and marks, column by column."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from transform.contract import Contract
from transform.exact_reader import Row
from transform.records import DIGEST_BYTES, DROPPED_SCHEMA, QUARANTINE_SCHEMA, Rejection
from transform.tables import MICROS, Origin, column_of, record_ids, repeated
from transform.verbs import Rows, Verbs

ROWS_MAX = 8_192  # held as Python values: of 500 fields each, eight times an Arrow column's memory

Place = tuple[int, int, int, str | None]
"""Where an element was: index in the Delivery, sub, child; and its partition key or group."""


class Drops:
    """Elements that a rule dropped."""

    def __init__(self) -> None:
        self.rules: list[str] = []
        self.index: list[int] = []
        self.sub: list[int] = []
        self.child: list[int] = []

    def add(self, rule: str, place: Place) -> None:
        index, sub, child, _ = place
        self.rules.append(rule)
        self.index.append(index)
        self.sub.append(sub)
        self.child.append(child)

    def table(self, origin: Origin) -> pa.Table:
        """The marks (`DROPPED_SCHEMA`)."""
        columns = origin.lineage(self.index, self.sub, self.child)
        columns["_rule"] = pa.array(self.rules, pa.string())
        names = DROPPED_SCHEMA.names
        return pa.table([columns[name] for name in names], schema=DROPPED_SCHEMA)


class Rejects:
    """Rejected elements, whole, each with its reason."""

    def __init__(self) -> None:
        self.rejections: list[Rejection] = []
        self.bodies: list[bytes] = []
        self.index: list[int] = []
        self.sub: list[int] = []
        self.child: list[int] = []
        self.groups: list[str | None] = []

    def add(self, rejection: Rejection, body: bytes, place: Place) -> None:
        index, sub, child, group = place
        self.rejections.append(rejection)
        self.bodies.append(body)
        self.index.append(index)
        self.sub.append(sub)
        self.child.append(child)
        self.groups.append(group)

    def table(self, origin: Origin) -> pa.Table:
        """The quarantine table (`QUARANTINE_SCHEMA`)."""
        digests = [hashlib.blake2b(b, digest_size=DIGEST_BYTES).digest() for b in self.bodies]
        columns: dict[str, pa.Array] = {
            "_step": pa.array([r.step for r in self.rejections], pa.string()),
            "_reason": pa.array([r.reason for r in self.rejections], pa.string()),
            "_field": pa.array([r.field for r in self.rejections], pa.string()),
            "_detail": pa.array([r.detail for r in self.rejections], pa.string()),
            "_body": pa.array(self.bodies, pa.binary()),
            "_partition_key": pa.array(self.groups, pa.string()),
            "_digest": pa.array(digests, pa.binary(DIGEST_BYTES)),
        }
        columns |= origin.lineage(self.index, self.sub, self.child)
        names = QUARANTINE_SCHEMA.names
        return pa.table([columns[name] for name in names], schema=QUARANTINE_SCHEMA)


class Good:
    """Rows that one plan read. They become columns, and are judged, while they are still few."""

    def __init__(
        self,
        contract: Contract,
        verbs: Verbs,
        arrivals: Sequence[int],
        rejects: Rejects,
        drops: Drops,
    ) -> None:
        self.contract, self._verbs = contract, verbs
        self._arrivals, self._rejects, self._drops = arrivals, rejects, drops
        self._names = [f.name for f in contract.fields]
        self._waiting: list[tuple[Row, str | None, bytes, bytes, Place, int]] = []
        self._parts: list[dict[str, pa.Array]] = []
        self.rescued: list[str | None] = []
        self.digests: list[bytes] = []
        self.index: list[int] = []
        self.sub: list[int] = []
        self.child: list[int] = []

    def add(  # noqa: PLR0913, PLR0917  what a row is, called for each
        self,
        row: Row,
        rescued: str | None,
        digest: bytes,
        came: bytes,
        place: Place,
        reading: int,
    ) -> None:
        """One row more; `came` is what is quarantined if a verb rejects it."""
        self._waiting.append((row, rescued, digest, came, place, reading))
        if len(self._waiting) == ROWS_MAX:
            self.fold()

    def fold(self) -> None:
        """Judge the rows that wait, as columns, and keep what is left."""
        if not self._waiting:
            return
        values, rescued, digests, came, places, readings = zip(*self._waiting, strict=True)
        self._waiting.clear()
        own = zip(self._names, zip(*values, strict=True), strict=True)
        rows = Rows(
            columns={name: column_of(column, name, self.contract) for name, column in own},
            arrivals=pa.array([self._arrivals[place[0]] for place in places], pa.int64()),
            readings=pa.array(readings, pa.int64()),
        )
        self._verbs.apply(rows)
        for number, rejection in rows.rejected.items():
            self._rejects.add(rejection, came[number], places[number])
        for number, rule in rows.dropped.items():
            self._drops.add(rule, places[number])
        kept = rows.kept()
        columns = rows.columns
        if len(kept) < len(rows):
            taken = pa.array(kept, pa.int32())
            columns = {name: column.take(taken) for name, column in columns.items()}
        self._parts.append(columns)
        for number in kept:
            index, sub, child, _ = places[number]
            self.index.append(index)
            self.sub.append(sub)
            self.child.append(child)
            self.rescued.append(rescued[number])
            self.digests.append(digests[number])

    def table(self, origin: Origin, schema: pa.Schema) -> pa.Table:
        """The rows with all that they carry, under a schema that may have more fields."""
        columns: dict[str, pa.Array | pa.ChunkedArray] = {
            name: _joined([part[name] for part in self._parts]) for name in self._names
        }
        count = len(self.index)
        columns |= origin.lineage(self.index, self.sub, self.child)
        columns["_rescued"] = pa.array(self.rescued, pa.string())
        columns["_digest"] = pa.array(self.digests, pa.binary(DIGEST_BYTES))
        moments = columns[self.contract.event_time].cast(pa.int64())
        skew = pc.subtract(columns["_arrival"].cast(pa.int64()), moments)
        latest = self.contract.max_lateness_seconds
        never = repeated(value=False, kind=pa.bool_(), count=count)
        columns["_skew"] = skew
        columns["_late"] = never if latest is None else pc.greater(skew, latest * MICROS)
        columns["_schema"] = repeated(self.contract.version, pa.int32(), count)
        columns["_record_id"] = record_ids(columns, self.contract)
        for field in schema:
            columns.setdefault(field.name, pa.nulls(count, field.type))
        return pa.table([columns[name] for name in schema.names], schema=schema)


def _joined(parts: list[pa.Array]) -> pa.Array | pa.ChunkedArray:
    """An ordinary Delivery's columns are of one chunk."""
    return parts[0] if len(parts) == 1 else pa.chunked_array(parts)
