"""Transform itself: a raw table to a Batch, as a tuple of plain steps.

    open envelopes → decode → judge event time by arrival → name records → columns

The verdict on a record depends on its body, its arrival and the generation, and on nothing else.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from transform.contract import Contract
from transform.decode import Decoder
from transform.envelope import Elements, open_envelopes
from transform.exact_reader import Row
from transform.records import (
    DIGEST_BYTES,
    DROPPED_SCHEMA,
    QUARANTINE_SCHEMA,
    UTC_MICROS,
    Batch,
    Counts,
    Generation,
    Rejection,
)

CODE_VERSION = (0, 1, 1)
"""Of the rules in this package. Raise it when a verdict, an identity or a value can change."""

MICROS = 1_000_000
ROWS_MAX = 8_192  # held as Python values: of 500 fields each, eight times an Arrow column's memory


@dataclass(frozen=True)
class Transform:
    """A contract made ready to be applied, under one reprocessing epoch. Build once per process."""

    contract: Contract
    epoch: int = 0

    @cached_property
    def generation(self) -> Generation:
        """Which rules this is: epoch, contract, code. The digest names all three."""
        major, minor, patch = CODE_VERSION
        rules = (self.epoch, self.contract.name, self.contract.version, self.contract.digest)
        named = repr((*rules, CODE_VERSION)).encode()
        return Generation(
            epoch=self.epoch,
            version=self.contract.version * 10**9 + major * 10**6 + minor * 10**3 + patch,
            digest=hashlib.blake2b(named, digest_size=8).hexdigest(),
        )

    @cached_property
    def decoder(self) -> Decoder:
        return Decoder.of(self.contract)

    @cached_property
    def schema(self) -> pa.Schema:
        return self.contract.landing_schema()

    def apply(self, raw: pa.Table, raw_key: str, first: int = 0) -> Batch:
        """Every source record of `raw` (`RAW_SCHEMA`) into rows and rejects, by origin.

        `first` is the place of its first record in the raw object.
        """
        bodies = raw.column("_body").to_pylist()
        groups = raw.column("_partition_key").to_pylist()
        arrivals = raw.column("_arrival").cast(pa.int64()).to_pylist()
        elements = (
            open_envelopes(bodies, groups, len(self.contract.fields))
            if raw.num_rows and raw.column("_source")[0].as_py() == "kinesis"
            else Elements(bodies, list(range(len(bodies))), [0] * len(bodies), groups)
        )
        good = _Good([self.schema.field(f.name).type for f in self.contract.fields])
        bad = _Bad()
        for index, rejection in elements.rejects.items():
            bad.add(rejection, bodies[index], index, 0, groups[index])
        self._judge(elements, arrivals, good, bad)
        elements_of = Counter(good.index)
        elements_of.update(bad.index)
        origin = _Origin(raw, raw_key, first, self.generation)
        rows = self._rows(origin, good, elements_of)
        rejects = self._rejects(origin, bad, elements_of)
        quarantined = len(set(bad.index))
        delivered = len(set(good.index) - set(bad.index))
        return Batch(
            rows=rows,
            rejects=rejects,
            drops=DROPPED_SCHEMA.empty_table(),
            counts=Counts(raw.num_rows, delivered, 0, quarantined),
            hot_rows=int(pc.sum(hot_mask(rows, self.contract)).as_py() or 0),
        )

    def unread(self, raw: pa.Table, raw_key: str, first: int, why: str) -> Batch:
        """Every source record of `raw` into quarantine, whole and unopened.

        No rules were applied, so the generation is the least of its epoch: any verdict wins over it
        by law 5.
        """
        bad = _Bad()
        rejection = Rejection("open", "killer", why)
        groups = raw.column("_partition_key").to_pylist()
        for index, body in enumerate(raw.column("_body").to_pylist()):
            bad.add(rejection, body, index, 0, groups[index])
        none = Generation(self.epoch, 0, "unread")
        origin = _Origin(raw, raw_key, first, none)
        return Batch(
            rows=self.schema.empty_table(),
            rejects=self._rejects(origin, bad, Counter(bad.index)),
            drops=DROPPED_SCHEMA.empty_table(),
            counts=Counts(raw.num_rows, 0, 0, raw.num_rows),
            hot_rows=0,
        )

    def _judge(self, elements: Elements, arrivals: list[int], good: _Good, bad: _Bad) -> None:
        """The path of a record. One Python pass; every failure is its own record's."""
        decode = self.decoder.decode
        event_time = [f.name for f in self.contract.fields].index(self.contract.event_time)
        ahead = self.contract.max_future_seconds * MICROS
        digest = hashlib.blake2b
        for body, index, sub, group in zip(
            elements.bodies, elements.index, elements.sub, elements.groups, strict=True
        ):
            result = decode(body)
            if isinstance(result, Rejection):
                bad.add(result, body, index, sub, group)
                continue
            row, rescued = result
            beyond = cast("int", row[event_time]) - arrivals[index]
            if beyond > ahead:
                bad.add(self._future(beyond), body, index, sub, group)
                continue
            good.add(row)
            good.rescued.append(rescued)
            good.digests.append(digest(body, digest_size=DIGEST_BYTES).digest())
            good.index.append(index)
            good.sub.append(sub)

    def _future(self, beyond_micros: int) -> Rejection:
        return Rejection(
            "check",
            "future_time",
            f"event time is {beyond_micros / MICROS:.0f} s beyond arrival; the contract takes "
            f"{self.contract.max_future_seconds} s",
            self.contract.event_time,
        )

    def _rows(self, origin: _Origin, good: _Good, elements_of: Mapping[int, int]) -> pa.Table:
        names = [f.name for f in self.contract.fields]
        columns = dict(zip(names, good.columns(), strict=True))
        columns["_rescued"] = pa.array(good.rescued, pa.string())
        columns["_digest"] = pa.array(good.digests, pa.binary(DIGEST_BYTES))
        columns |= self._lineage(origin, good.index, good.sub)
        columns["_elements"] = _elements(good.index, elements_of)
        columns["_record_id"] = record_ids(columns, self.contract)
        return pa.table([columns[name] for name in self.schema.names], schema=self.schema)

    def _rejects(self, origin: _Origin, bad: _Bad, elements_of: Mapping[int, int]) -> pa.Table:
        digests = [hashlib.blake2b(b, digest_size=DIGEST_BYTES).digest() for b in bad.bodies]
        columns: dict[str, pa.Array] = {
            "_step": pa.array([r.step for r in bad.rejections], pa.string()),
            "_reason": pa.array([r.reason for r in bad.rejections], pa.string()),
            "_field": pa.array([r.field for r in bad.rejections], pa.string()),
            "_detail": pa.array([r.detail for r in bad.rejections], pa.string()),
            "_body": pa.array(bad.bodies, pa.binary()),
            "_partition_key": pa.array(bad.groups, pa.string()),
            "_digest": pa.array(digests, pa.binary(DIGEST_BYTES)),
        }
        columns |= self._lineage(origin, bad.index, bad.sub)
        columns["_elements"] = _elements(bad.index, elements_of)
        names = QUARANTINE_SCHEMA.names
        return pa.table([columns[name] for name in names], schema=QUARANTINE_SCHEMA)

    def _lineage(self, origin: _Origin, index: list[int], sub: list[int]) -> dict[str, pa.Array]:
        """Position, arrival, origin and generation of the given elements, as columns."""
        count = len(index)
        generation = origin.generation
        taken = origin.raw.select(["_stream", "_shard", "_sequence", "_arrival"])
        taken = taken.take(pa.array(index, pa.int32())).combine_chunks()
        return {
            **{name: _whole(taken.column(name)) for name in taken.column_names},
            "_contract": _repeated(self.contract.name, pa.string(), count),
            "_raw": _repeated(origin.raw_key, pa.string(), count),
            "_index": pa.array([origin.first + i for i in index], pa.int32()),
            "_sub": pa.array(sub, pa.int32()),
            "_child": _repeated(0, pa.int32(), count),
            "_epoch": _repeated(generation.epoch, pa.int32(), count),
            "_version": _repeated(generation.version, pa.int64(), count),
            "_generation": _repeated(generation.digest, pa.string(), count),
        }


def record_ids(columns: dict[str, pa.Array], contract: Contract) -> pa.Array:
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
    """Which rows the hot table keeps: those that were not yet past its TTL when they arrived."""
    if contract.hot_ttl_seconds is None:
        return _repeated(value=True, kind=pa.bool_(), count=rows.num_rows)
    age = pc.subtract(
        rows.column("_arrival").cast(pa.int64()), rows.column(contract.event_time).cast(pa.int64())
    )
    return pc.less(age, contract.hot_ttl_seconds * MICROS)


def utc_text(moments: pa.Array) -> pa.Array:
    """Moments as ISO text: `2026-11-24T02:03:04.000005Z`.

    Not by strftime: it looks a zone up, even UTC, in files that a Lambda image may lack.
    """
    text = moments.cast(pa.timestamp("us")).cast(pa.string())
    return pc.binary_join_element_wise(pc.replace_substring(text, " ", "T"), "Z", "")


@dataclass(frozen=True)
class _Origin:
    """Where a batch's records come from, and under which rules."""

    raw: pa.Table
    raw_key: str
    first: int
    generation: Generation


class _Good:
    """Accepted elements, column by column. Rows become columns while they are still few."""

    def __init__(self, kinds: list[pa.DataType]) -> None:
        self.kinds = kinds
        self.rows: list[Row] = []
        self.parts: list[list[pa.Array]] = []
        self.rescued: list[str | None] = []
        self.digests: list[bytes] = []
        self.index: list[int] = []
        self.sub: list[int] = []

    def add(self, row: Row) -> None:
        self.rows.append(row)
        if len(self.rows) == ROWS_MAX:
            self._fold()

    def columns(self) -> list[pa.Array | pa.ChunkedArray]:
        """The contract's own columns; an ordinary Delivery's are of one chunk."""
        if self.rows or not self.parts:
            self._fold()
        if len(self.parts) == 1:
            return list(self.parts[0])
        return [pa.chunked_array(chunks) for chunks in zip(*self.parts, strict=True)]

    def _fold(self) -> None:
        own = zip(*self.rows, strict=True) if self.rows else ((),) * len(self.kinds)
        self.parts.append([_column(v, kind) for v, kind in zip(own, self.kinds, strict=True)])
        self.rows.clear()


class _Bad:
    """Rejected elements, column by column."""

    def __init__(self) -> None:
        self.rejections: list[Rejection] = []
        self.bodies: list[bytes] = []
        self.index: list[int] = []
        self.sub: list[int] = []
        self.groups: list[str | None] = []

    def add(
        self, rejection: Rejection, body: bytes, index: int, sub: int, group: str | None
    ) -> None:
        self.rejections.append(rejection)
        self.bodies.append(body)
        self.index.append(index)
        self.sub.append(sub)
        self.groups.append(group)


def _column(values: tuple[object, ...], kind: pa.DataType) -> pa.Array:
    if kind == UTC_MICROS:
        return pa.array(values, pa.int64()).cast(UTC_MICROS)
    return pa.array(values, kind)


def _id_part(column: pa.Array) -> pa.Array:
    if pa.types.is_string(column.type):
        return pc.replace_substring(pc.replace_substring(column, "%", "%25"), "/", "%2F")
    return utc_text(column) if column.type == UTC_MICROS else column.cast(pa.string())


def _elements(index: list[int], elements_of: Mapping[int, int]) -> pa.Array:
    return pa.array([elements_of[source] for source in index], pa.int32())


def _repeated(value: object, kind: pa.DataType, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, kind), count)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()
