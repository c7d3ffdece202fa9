"""A batch's tables: lineage, names and masks as columns."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from transform.columns import below, may_hold, numbers, repeated, scalar, whole
from transform.contract import ROW_MARKS, Contract
from transform.field_types import ARROW_TYPES, FieldType, utc_text
from transform.records import DROPPED_SCHEMA, ROW_FIELDS, UTC_MICROS, Counts, Generation

SKEW = "_skew"
INDEX = "_index"  # in a part still the place in `raw`, in a table that in the raw object
ROWS_MAX = 8_192  # of a part: of 500 fields each, as Python values eight times a column's memory
MICROS = 1_000_000
SAMPLE_BYTES = 8  # of a digest of the record id, as a number, against the part that is kept


class Shared:
    """Columns that say one thing: those of a full part are made once, for every part."""

    def __init__(self) -> None:
        self._full: dict[tuple[object, pa.DataType], pa.Array] = {}

    def column(self, value: object, kind: pa.DataType, count: int) -> pa.Array:
        if not ROWS_MAX // 2 < count <= ROWS_MAX:
            return repeated(value, kind, count)
        full = self._full.get((value, kind))
        if full is None:
            full = self._full[value, kind] = repeated(value, kind, ROWS_MAX)
        return full.slice(0, count)


@dataclass(frozen=True)
class Origin:
    """Where a batch's records come from, and under which rules.

    `indexes` has every row's place in `raw`, whatever became of it; it is None where each record
    came to one.
    """

    raw: pa.Table
    raw_key: str
    first: int
    generation: Generation
    contract: str
    indexes: pa.ChunkedArray | None
    shared: Shared = field(default_factory=Shared)

    def lineage(
        self, part: Mapping[str, pa.Array], *, in_order: bool = False
    ) -> dict[str, pa.Array]:
        """Position, arrival, origin and generation of a part's elements, as columns.

        `in_order` are those that stand as they came.
        """
        index, generation = part[INDEX], self.generation
        values = {
            "_contract": (self.contract, pa.string()),
            "_raw": (self.raw_key, pa.string()),
            "_epoch": (generation.epoch, pa.int32()),
            "_version": (generation.version, pa.int64()),
            "_generation": (generation.digest, pa.string()),
        }
        return {
            **self._positions(index, in_order=in_order),
            **{name: self.shared.column(*value, len(index)) for name, value in values.items()},
            "_index": pc.add(index, scalar(self.first, pa.int32())) if self.first else index,
            "_sub": part["_sub"],
            "_child": part["_child"],
            "_elements": self._elements(index),
        }

    def _elements(self, index: pa.Array) -> pa.Array:
        if self.indexes is None:
            return self.shared.column(1, pa.int32(), len(index))
        known, counts = self._counted
        return counts.take(pc.index_in(index, value_set=known))

    def _positions(self, index: pa.Array, *, in_order: bool) -> dict[str, pa.Array]:
        """Position and arrival; of a part that is of one source record, shared with its others."""
        if self._is_of_one(index):
            row = self._placed.slice(index[0].as_py(), 1)
            columns = zip(row.schema, row.columns, strict=True)
            return {f.name: self.shared.column(c[0], f.type, len(index)) for f, c in columns}
        every = in_order and self.indexes is None and len(index) == self.raw.num_rows
        taken = self._placed if every else self._placed.take(index)
        return {name: whole(taken.column(name)) for name in taken.column_names}

    def _is_of_one(self, index: pa.Array) -> bool:
        if self.indexes is None or len(index) <= ROWS_MAX // 2:
            return False
        span = pc.min_max(index)
        return bool(span["min"] == span["max"])

    @cached_property
    def _placed(self) -> pa.Table:
        return self.raw.select(["_stream", "_shard", "_sequence", "_arrival"])

    @cached_property
    def _counted(self) -> tuple[pa.Array, pa.Array]:
        """Places in `raw`, and to how many rows each came."""
        counted = pc.value_counts(self.indexes)
        return counted.field("values"), counted.field("counts").cast(pa.int32())

    def marks(self, rows: pa.Table, rule: str) -> pa.Table:
        """Rows as marks of what a rule dropped (`DROPPED_SCHEMA`)."""
        rules = repeated(rule, pa.string(), rows.num_rows)
        kept = [rows.column(name) for name in DROPPED_SCHEMA.names[1:]]
        return pa.table([rules, *kept], schema=DROPPED_SCHEMA)


def landing_schema(contract: Contract, older: Sequence[Contract] = ()) -> pa.Schema:
    """The landing schema of a contract; fields that only older versions have stand behind its own.

    What not every version has is null in the others' rows.
    """
    if not older:
        return contract.landing_schema()
    versions = (contract, *sorted(older, key=lambda c: -c.version))
    own: dict[str, pa.Field] = {}
    for version in versions:
        schema = version.landing_schema()
        for spec in version.fields:
            own.setdefault(spec.name, schema.field(spec.name))
    schemas = [version.landing_schema() for version in versions]
    nullable = {
        name: any(name not in s.names or s.field(name).nullable for s in schemas) for name in own
    }
    fields = [field.with_nullable(nullable[name]) for name, field in own.items()]
    return pa.schema([*fields, *ROW_MARKS, *ROW_FIELDS])


def record_ids(columns: Mapping[str, pa.Array], contract: Contract) -> pa.Array:
    """What makes two records the same, as readable text: `device/2026-11-24T02:03:04.000005Z/17`.

    Text parts are escaped (`%` and `/`), so different fields never make one id. Without record id
    fields the position is the identity: `@stream/shard/sequence/sub/child`.
    """
    if contract.record_id:
        parts = [_id_part(columns[name]) for name in contract.record_id]
    else:
        parts = [_id_part(columns[name]) for name in ("_stream", "_shard", "_sequence")]
        parts += [_id_part(columns[name]) for name in ("_sub", "_child")]
    joined = pc.binary_join_element_wise(*parts, "/")
    return joined if contract.record_id else pc.binary_join_element_wise("@", joined, "")


def counts_of(origin: Origin, rows: pa.Table, rejects: pa.Table, drops: pa.Table) -> Counts:
    """Source records by the worst of their rows: quarantined, delivered, dropped."""
    if origin.indexes is None:
        return Counts(origin.raw.num_rows, rows.num_rows, drops.num_rows, rejects.num_rows)
    if not rejects.num_rows + drops.num_rows:
        return Counts(origin.raw.num_rows, len(pc.unique(rows.column("_index"))), 0, 0)
    good, bad, dropped = (pc.unique(of.column("_index")) for of in (rows, rejects, drops))
    fallen = _without(dropped, pa.concat_arrays((good, bad)))
    return Counts(origin.raw.num_rows, len(_without(good, bad)), len(fallen), len(bad))


def hot_mask(rows: pa.Table, contract: Contract) -> pa.Array:
    """Which rows the hot table keeps: those that the contract wants hot.

    What was past its TTL already when it arrived is not among them.
    """
    if contract.hot_ttl_seconds is None:
        mask = repeated(value=True, kind=pa.bool_(), count=rows.num_rows)
    else:
        mask = below(_ages(rows, contract), contract.hot_ttl_seconds * MICROS)
    if contract.hot_when is not None:
        named = {name: rows.column(name) for name in contract.hot_when.names}
        wanted = contract.hot_when.evaluate(named, rows.num_rows)
        mask = pc.and_(mask, pc.fill_null(wanted, fill_value=False))
    return whole(mask) if isinstance(mask, pa.ChunkedArray) else mask


def _ages(rows: pa.Table, contract: Contract) -> pa.Array:
    """Microseconds from event time to arrival; Hot does not read the column that has them."""
    if SKEW in rows.column_names:
        return whole(rows.column(SKEW))
    ages = pc.subtract(rows.column("_arrival"), rows.column(contract.event_time))
    return whole(ages).view(pa.int64())


def sampled(rows: pa.Table, part: float) -> pa.ChunkedArray:
    """Which rows are in the sample: a function of the record id, so repeats share their fate."""
    limit = part * 256**SAMPLE_BYTES

    def within(names: pa.Array) -> pa.Array:
        hashes = (hashlib.blake2b(n, digest_size=SAMPLE_BYTES) for n in names.to_pylist())
        return pa.array([int.from_bytes(h.digest()) < limit for h in hashes], pa.bool_())

    names = rows.column("_record_id").cast(pa.binary())
    return pa.chunked_array([within(chunk) for chunk in names.chunks], pa.bool_())


def column_of(values: Sequence[object], kind: FieldType) -> pa.Array:
    """A field's values as its column; timestamps in microseconds."""
    if kind == "float64":
        return numbers(values, "d", ARROW_TYPES[kind])
    if kind in {"int64", "timestamp"}:
        return numbers(values, "q", ARROW_TYPES[kind])
    return pa.array(values, ARROW_TYPES[kind])


def _without(some: pa.Array, others: pa.Array) -> pa.Array:
    return some.filter(pc.invert(pc.is_in(some, others))) if len(some) and len(others) else some


def _id_part(column: pa.Array) -> pa.Array:
    if pa.types.is_string(column.type):
        if not may_hold(column, b"%", b"/"):
            return column
        return pc.replace_substring(pc.replace_substring(column, "%", "%25"), "/", "%2F")
    return utc_text(column) if column.type == UTC_MICROS else column.cast(pa.string())
