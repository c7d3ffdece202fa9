"""What becomes of a Delivery's elements, gathered: rows, rejects and marks, column by column."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from itertools import chain, islice, repeat
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from transform.columns import numbers, texts
from transform.contract import Contract
from transform.envelope import rows_max
from transform.exact_reader import Row
from transform.records import DIGEST, DIGEST_BYTES, DROPPED_SCHEMA, QUARANTINE_SCHEMA, Rejection
from transform.tables import (
    INDEX,
    MICROS,
    ROWS_MAX,
    SKEW,
    Origin,
    Shared,
    column_of,
    record_ids,
)
from transform.verbs import Rows, Verbs

WAITING = 9  # values of a row that is no column yet
BYTES_MAX = 4_194_304  # of rejected bodies that are no column yet
NO_DROPS, NO_REJECTS = DROPPED_SCHEMA.empty_table(), QUARANTINE_SCHEMA.empty_table()

Part = dict[str, pa.Array]
"""Some thousand elements, by the names of their columns; `_index` is the place in `raw`."""

Place = tuple[int, int, int, str | None]
"""Where an element was: index in the Delivery, sub, child; and its partition key or group."""


class Drops:
    """Elements that a rule dropped."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self._waiting: list[Any] = []

    def add(self, rule: str, index: int, sub: int, child: int, _group: str | None) -> None:
        self._waiting += (rule, index, sub, child)
        if len(self._waiting) == ROWS_MAX * 4:
            self.fold()

    def fold(self) -> None:
        """What waits becomes columns."""
        if not self._waiting:
            return
        rules, *places = (self._waiting[number::4] for number in range(4))
        self._waiting = []
        self.parts.append({"_rule": pa.array(rules, pa.string()), **_placed(places)})

    def table(self, origin: Origin) -> pa.Table:
        """The marks (`DROPPED_SCHEMA`)."""
        return _table(_traced(self.parts, origin), DROPPED_SCHEMA) if self.parts else NO_DROPS


class Rejects:
    """Rejected elements, whole, each with its reason."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self._waiting: list[Any] = []
        self._bytes = 0
        self._shared = Shared()

    def add(  # noqa: PLR0913, PLR0917  a `Place`, and what was there
        self,
        rejection: Rejection,
        body: bytes,
        index: int,
        sub: int,
        child: int,
        group: str | None,
    ) -> None:
        self._waiting += (rejection, body, index, sub, child, group)
        self._bytes += len(body)
        if len(self._waiting) == ROWS_MAX * 6 or self._bytes > BYTES_MAX:
            self.fold()

    def fold(self) -> None:
        """What waits becomes columns: a reject as Python values takes ten times their memory."""
        if not self._waiting:
            return
        found: Any = (self._waiting[number::6] for number in range(6))
        rejections, bodies, *places, groups = found
        self._waiting, self._bytes = [], 0
        digests = [hashlib.blake2b(b, digest_size=DIGEST_BYTES).digest() for b in bodies]
        self.parts.append(
            {
                "_step": self._texts([r.step for r in rejections]),
                "_reason": self._texts([r.reason for r in rejections]),
                "_field": self._texts([r.field for r in rejections]),
                "_detail": self._texts([r.detail for r in rejections]),
                "_body": pa.array(bodies, pa.binary()),
                "_partition_key": self._texts(groups),
                "_digest": pa.array(digests, DIGEST),
                **_placed(places),
            }
        )

    def table(self, origin: Origin) -> pa.Table:
        """The quarantine table (`QUARANTINE_SCHEMA`)."""
        return _table(_traced(self.parts, origin), QUARANTINE_SCHEMA) if self.parts else NO_REJECTS

    def _texts(self, values: list[str | None]) -> pa.Array:
        if len(values) == ROWS_MAX and values.count(values[0]) == ROWS_MAX:
            return self._shared.column(values[0], pa.string(), ROWS_MAX)
        return pa.array(values, pa.string())


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
        self._waiting: list[Any] = []  # flat: the garbage collector would follow a tuple for each
        self.parts: list[Part] = []

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

    def extend(
        self,
        rows: Sequence[Row | None],
        digests: Sequence[bytes],
        came: Sequence[bytes],
        *places: Sequence[int | str | None],
    ) -> None:
        """`add` of rows that are each all of their message; `places` are a `Place`'s columns."""
        none, zero, left = repeat(None), repeat(0), len(rows)
        every = zip(rows, none, digests, came, zero, *places, strict=False)
        while left > 0:
            room = ROWS_MAX - len(self._waiting) // WAITING
            self._waiting += chain.from_iterable(islice(every, room))
            left -= room
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
        placed = _placed(places[:3])
        rows = Rows(
            columns={spec.name: column_of(column, spec.type) for spec, column in own},
            arrivals=self._arrivals.take(placed[INDEX]),
            readings=readings,
        )
        self._verbs.apply(rows)
        for number, rejection in rows.rejected.items():
            self._rejects.add(rejection, came[number], *(of[number] for of in places))
        for number, rule in rows.dropped.items():
            self._drops.add(rule, *(of[number] for of in places))
        part = rows.columns | placed
        part["_rescued"] = texts(rescued)
        part["_digest"] = pa.array(digests, DIGEST)
        kept = rows.kept()
        if kept is not None:
            taken = pa.array(kept, pa.int32())
            part = {name: column.take(taken) for name, column in part.items()}
        if kept != []:
            self.parts.append(part)

    def table(self, origin: Origin, schema: pa.Schema) -> pa.Table:
        """The rows with all that they carry, under a schema that may have more fields."""
        return _table([self._whole(part, origin, schema) for part in self.parts], schema)

    def _whole(self, part: Part, origin: Origin, schema: pa.Schema) -> Part:
        shared, rows = origin.shared, len(part[INDEX])
        columns = part | origin.lineage(part, in_order=True)
        latest = self.contract.max_lateness_seconds
        never = shared.column(False, pa.bool_(), rows)  # noqa: FBT003  the value
        columns["_late"] = never if latest is None else pc.greater(columns[SKEW], latest * MICROS)
        columns["_schema"] = shared.column(self.contract.version, pa.int32(), rows)
        columns["_record_id"] = record_ids(columns, self.contract)
        for name in schema.names:
            if name not in columns:
                columns[name] = shared.column(None, schema.field(name).type, rows)
        return columns


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


def _placed(places: Sequence[Sequence[int]]) -> Part:
    """Where a part's elements were, as columns."""
    names = (INDEX, "_sub", "_child")
    kind = pa.int32()
    return {name: numbers(of, "i", kind) for name, of in zip(names, places, strict=True)}


def _traced(parts: Sequence[Part], origin: Origin) -> list[Part]:
    return [part | origin.lineage(part) for part in parts]


def _table(parts: Sequence[Part], schema: pa.Schema) -> pa.Table:
    """Parts with all their columns, one behind the other. An ordinary Delivery's is one."""
    names = schema.names
    tables = [pa.table([part[name] for name in names], schema=schema) for part in parts]
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables)
