"""A batch's tables: lineage, names and masks as columns."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from transform.contract import ROW_MARKS, Contract
from transform.field_types import ARROW_TYPES, utc_text
from transform.records import DROPPED_SCHEMA, ROW_FIELDS, UTC_MICROS, Generation

MICROS = 1_000_000
SAMPLE_BYTES = 8  # of a digest of the record id, as a number, against the part that is kept


@dataclass(frozen=True)
class Origin:
    """Where a batch's records come from, and under which rules.

    `elements_of` says how many rows each of them came to, by its place in `raw`.
    """

    raw: pa.Table
    raw_key: str
    first: int
    generation: Generation
    contract: str
    elements_of: Mapping[int, int]

    def lineage(
        self, index: Sequence[int], sub: Sequence[int], child: Sequence[int]
    ) -> dict[str, pa.Array]:
        """Position, arrival, origin and generation of the given elements, as columns."""
        count, generation = len(index), self.generation
        taken = self.raw.select(["_stream", "_shard", "_sequence", "_arrival"])
        taken = taken.take(pa.array(index, pa.int32())).combine_chunks()
        elements_of = self.elements_of
        return {
            **{name: taken.column(name).combine_chunks() for name in taken.column_names},
            "_contract": repeated(self.contract, pa.string(), count),
            "_raw": repeated(self.raw_key, pa.string(), count),
            "_index": pa.array([self.first + i for i in index], pa.int32()),
            "_sub": pa.array(sub, pa.int32()),
            "_child": pa.array(child, pa.int32()),
            "_elements": pa.array([elements_of[i] for i in index], pa.int32()),
            "_epoch": repeated(generation.epoch, pa.int32(), count),
            "_version": repeated(generation.version, pa.int64(), count),
            "_generation": repeated(generation.digest, pa.string(), count),
        }

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


def hot_mask(rows: pa.Table, contract: Contract) -> pa.Array:
    """Which rows the hot table keeps: those that the contract wants hot.

    What was past its TTL already when it arrived is not among them.
    """
    mask = repeated(value=True, kind=pa.bool_(), count=rows.num_rows)
    if contract.hot_ttl_seconds is not None:
        arrival = rows.column("_arrival").cast(pa.int64())
        age = pc.subtract(arrival, rows.column(contract.event_time).cast(pa.int64()))
        mask = pc.less(age, contract.hot_ttl_seconds * MICROS)
    if contract.hot_when is not None:
        named = {name: rows.column(name) for name in contract.hot_when.names}
        wanted = contract.hot_when.evaluate(named, rows.num_rows)
        mask = pc.and_(mask, pc.fill_null(wanted, fill_value=False))
    return mask.combine_chunks() if isinstance(mask, pa.ChunkedArray) else mask


def sampled(rows: pa.Table, part: float) -> pa.Array:
    """Which rows are in the sample: a function of the record id, so repeats share their fate."""
    below = part * 256**SAMPLE_BYTES
    return pa.array(
        [
            int.from_bytes(hashlib.blake2b(name, digest_size=SAMPLE_BYTES).digest()) < below
            for name in rows.column("_record_id").cast(pa.binary()).to_pylist()
        ],
        pa.bool_(),
    )


def column_of(values: Sequence[object], name: str, contract: Contract) -> pa.Array:
    """A field's values as its column; timestamps in microseconds."""
    kind = ARROW_TYPES[contract.field(name).type]
    if kind == UTC_MICROS:
        return pa.array(values, pa.int64()).cast(UTC_MICROS)
    return pa.array(values, kind)


def repeated(value: object, kind: pa.DataType, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, kind), count)


def _id_part(column: pa.Array) -> pa.Array:
    if pa.types.is_string(column.type):
        return pc.replace_substring(pc.replace_substring(column, "%", "%25"), "/", "%2F")
    return utc_text(column) if column.type == UTC_MICROS else column.cast(pa.string())
