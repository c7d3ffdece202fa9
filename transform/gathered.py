"""What becomes of a Delivery's elements, gathered: rows, rejects and marks, column by column."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from transform.contract import Contract
from transform.envelope import rows_max
from transform.exact_reader import Row
from transform.records import DIGEST_BYTES, DROPPED_SCHEMA, QUARANTINE_SCHEMA, Rejection
from transform.tables import MICROS, Origin, column_of, record_ids, repeated
from transform.verbs import SKEW, Rows, Verbs

ROWS_MAX = 8_192  # held as Python values: of 500 fields each, eight times an Arrow column's memory

WAITING = 9  # values of a row that is no column yet
NO_DROPS, NO_REJECTS = DROPPED_SCHEMA.empty_table(), QUARANTINE_SCHEMA.empty_table()

Place = tuple[int, int, int, str | None]
"""Where an element was: index in the Delivery, sub, child; and its partition key or group."""


class Drops:
    """Elements that a rule dropped."""

    def __init__(self) -> None:
        self.rules: list[str] = []
        self.index: list[int] = []
        self.sub: list[int] = []
        self.child: list[int] = []

    def add(self, rule: str, index: int, sub: int, child: int, _group: str | None) -> None:
        self.rules.append(rule)
        self.index.append(index)
        self.sub.append(sub)
        self.child.append(child)

    def table(self, origin: Origin) -> pa.Table:
        """The marks (`DROPPED_SCHEMA`)."""
        if not self.rules:
            return NO_DROPS
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

    def add(  # noqa: PLR0913, PLR0917  a `Place`, and what was there
        self,
        rejection: Rejection,
        body: bytes,
        index: int,
        sub: int,
        child: int,
        group: str | None,
    ) -> None:
        self.rejections.append(rejection)
        self.bodies.append(body)
        self.index.append(index)
        self.sub.append(sub)
        self.child.append(child)
        self.groups.append(group)

    def table(self, origin: Origin) -> pa.Table:
        """The quarantine table (`QUARANTINE_SCHEMA`)."""
        if not self.bodies:
            return NO_REJECTS
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
        arrivals: pa.Array,
        rejects: Rejects,
        drops: Drops,
    ) -> None:
        self.contract, self._verbs = contract, verbs
        self._arrivals, self._rejects, self._drops = arrivals, rejects, drops
        self._names = [f.name for f in contract.fields]
        self._waiting: list[Any] = []  # flat: the garbage collector would follow a tuple for each
        self._parts: list[dict[str, pa.Array]] = []
        self._rescued: list[str | None] = []
        self._digests: list[bytes] = []
        self.index: list[int] = []
        self._sub: list[int] = []
        self._child: list[int] = []

    def add(  # noqa: PLR0913, PLR0917  what a row is, called for each
        self,
        row: Row,
        rescued: str | None,
        digest: bytes,
        came: bytes,
        reading: int,
        index: int,
        sub: int,
        child: int,
        group: str | None,
    ) -> None:
        """One row more; `came` is what is quarantined if a verb rejects it."""
        self._waiting += (row, rescued, digest, came, reading, index, sub, child, group)
        if len(self._waiting) == ROWS_MAX * WAITING:
            self.fold()

    def fold(self) -> None:
        """Judge the rows that wait, as columns, and keep what is left."""
        if not self._waiting:
            return
        found: Any = (self._waiting[number::WAITING] for number in range(WAITING))
        values, rescued, digests, came, readings, *places = found
        self._waiting.clear()
        own = zip(self.contract.fields, zip(*values, strict=True), strict=True)
        rows = Rows(
            columns={spec.name: column_of(column, spec.type) for spec, column in own},
            arrivals=self._arrivals.take(pa.array(places[0], pa.int32())),
            readings=pa.array(readings, pa.int64()),
        )
        self._verbs.apply(rows)
        for number, rejection in rows.rejected.items():
            self._rejects.add(rejection, came[number], *(of[number] for of in places))
        for number, rule in rows.dropped.items():
            self._drops.add(rule, *(of[number] for of in places))
        kept = rows.kept()
        columns = rows.columns
        if kept is not None:
            taken = pa.array(kept, pa.int32())
            columns = {name: column.take(taken) for name, column in columns.items()}
            rescued, digests, *places = (
                [of[n] for n in kept] for of in (rescued, digests, *places)
            )
        self._parts.append(columns)
        self._rescued += rescued
        self._digests += digests
        self.index += places[0]
        self._sub += places[1]
        self._child += places[2]

    def table(self, origin: Origin, schema: pa.Schema) -> pa.Table:
        """The rows with all that they carry, under a schema that may have more fields."""
        columns: dict[str, pa.Array | pa.ChunkedArray] = {
            name: _joined([part[name] for part in self._parts]) for name in (*self._names, SKEW)
        }
        count = len(self.index)
        columns |= origin.lineage(self.index, self._sub, self._child)
        columns["_rescued"] = pa.array(self._rescued, pa.string())
        columns["_digest"] = pa.array(self._digests, pa.binary(DIGEST_BYTES))
        latest = self.contract.max_lateness_seconds
        never = repeated(value=False, kind=pa.bool_(), count=count)
        columns["_late"] = never if latest is None else pc.greater(columns[SKEW], latest * MICROS)
        columns["_schema"] = repeated(self.contract.version, pa.int32(), count)
        columns["_record_id"] = record_ids(columns, self.contract)
        for field in schema:
            columns.setdefault(field.name, pa.nulls(count, field.type))
        return pa.table([columns[name] for name in schema.names], schema=schema)


class Numbers:
    """Numbers the rows of a source record, or of each member of an aggregate.

    Exploded, the messages of an array come to more rows than there are messages; so each row gets
    its holder's next number, whatever becomes of it.
    """

    def __init__(self, bodies: pa.ChunkedArray, fields: int) -> None:
        self._sizes = pc.binary_length(bodies).to_pylist()
        self._fields = fields
        self._index = -1
        self._rows = 0
        self._next: Counter[int] = Counter()

    def left(self, index: int) -> int:
        """How many readings a list may have: one, and what its source record is still worth."""
        so_far = self._rows if index == self._index else 0
        return max(1, rows_max(self._sizes[index], self._fields) - so_far)

    def next(self, index: int, sub: int, _child: int, group: str | None) -> Place:
        if index != self._index:
            self._index, self._rows = index, 0
            self._next.clear()
        self._rows += 1
        child = self._next[sub]
        self._next[sub] = child + 1
        return index, sub, child, group


def _joined(parts: list[pa.Array]) -> pa.Array | pa.ChunkedArray:
    """An ordinary Delivery's columns are of one chunk."""
    return parts[0] if len(parts) == 1 else pa.chunked_array(parts)
