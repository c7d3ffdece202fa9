"""What the stores themselves say, as tables: the ground that `verify` and `why` stand on.

Everything is read where it lies: raw, landing and quarantine objects byte by byte (an object is
named by the digest of its bytes), the ledger and the hot tables by scanning, the sources within
their retention. Nothing here asks the pipeline what it thinks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from infra import lake_evidence
from infra.lake_evidence import Lakes
from infra.parked import NOTHING, Parked, digest
from sinks import contracts as kept_contracts
from sinks import control, erasures, hot, landing, ledger, parquet, raw
from sinks.bucket import Bucket
from sinks.erasures import Erasure
from sinks.lake.manifest import Manifest
from sinks.ledger import Attempt
from sinks.table import Key, Table
from transform.columns import repeated
from transform.contract import Contract
from transform.contract_file import parse_contract
from transform.erased import erased_of
from transform.pipeline import Transform
from transform.records import (
    DROPPED_SCHEMA,
    POSITION,
    QUARANTINE_SCHEMA,
    RAW_SCHEMA,
    ROW_FIELDS,
)
from transform.tables import MICROS, hot_mask

READERS = 8
HOUR_MICROS = 3_600 * MICROS

RAW = pa.schema(
    [
        *RAW_SCHEMA,
        pa.field("_raw", pa.string()),
        pa.field("_index", pa.int32()),
        pa.field("_sha", pa.string()),
    ]
)
LANDING = pa.schema(
    [
        *ROW_FIELDS,
        pa.field("_object", pa.string()),
        pa.field("_row", pa.int64()),
        pa.field("_pk", pa.string()),
        pa.field("_sk", pa.string()),
        pa.field("_hot", pa.bool_()),
        pa.field("_latest", pa.bool_()),
        pa.field("_expires", pa.int64()),
    ]
)
OF_LAKE = LANDING.append(pa.field("_hour", pa.int64()))
QUARANTINE = pa.schema([*QUARANTINE_SCHEMA, pa.field("_object", pa.string())])
DROPPED = pa.schema([*DROPPED_SCHEMA, pa.field("_object", pa.string())])
HELD = pa.schema([*((name, pa.string()) for name in POSITION), ("_sha", pa.string())])


class HotKeys(Protocol):
    """A hot store, of which only the keys are read."""

    def all_keys(self) -> Iterable[Key]: ...


@dataclass(frozen=True)
class Held:
    """What the sources still hold.

    `records` (`HELD`) is what streams keep of what was passed; `passed` the checkpoint of each
    stream and shard, of which a missing one has passed nothing; `waiting` how many messages each
    queue holds. `scope` and `unchecked` say in words what was read and what could not be.
    """

    records: pa.Table = field(default_factory=HELD.empty_table)
    passed: Mapping[tuple[str, str], int] = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)
    scope: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stores:
    """Every store a record can be in. `hot` is by the contract's name; `now_micros` since 1970."""

    bucket: Bucket
    ledger: Table
    hot: Mapping[str, HotKeys]
    contracts: Sequence[Contract]
    now_micros: int
    parked: Parked = NOTHING
    held: Held = field(default_factory=Held)


@dataclass(frozen=True)
class Object:
    """One object as it was found. `rows` is of its footer, and what was erased of it besides."""

    key: str
    rows: int
    bytes: int
    sound: bool
    erased: int = 0


@dataclass(frozen=True)
class Evidence:
    """Everything that was read. `raw_tables` has each Delivery by its key.

    `landing` has what landed, and of objects that are gone what the lake has instead.
    """

    stores: Stores
    raw: pa.Table
    raw_tables: Mapping[str, pa.Table]
    landing: pa.Table
    quarantine: pa.Table
    dropped: pa.Table
    attempts: Sequence[Attempt]
    objects: Mapping[str, Object]
    rules: Rules
    lakes: Lakes
    erasures: Sequence[Erasure]


@dataclass
class Rules:
    """Contracts by digest: those used here and those kept beside the objects they made."""

    contracts: Mapping[str, Contract]
    told: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    hash_key: bytes = b""
    _made: dict[int, dict[str, Transform]] = field(default_factory=dict)

    def of(self, epoch: int, generation: str) -> Transform | None:
        """The rules of a generation, None where its contract or its code is not here."""
        if generation in self.told:
            return self._as_told(generation)
        if epoch not in self._made:
            every = (Transform(contract, epoch) for contract in self.contracts.values())
            self._made[epoch] = {rules.generation.digest: rules for rules in every}
        return self._made[epoch].get(generation)

    def _as_told(self, generation: str) -> Transform | None:
        """A generation of several contracts, or of a key: the bucket keeps what it was of."""
        told = self.told[generation]
        digests = (told["contract"], *told["older"])
        if any(digest not in self.contracts for digest in digests):
            return None
        current, *older = (self.contracts[digest] for digest in digests)
        older.sort(key=lambda contract: contract.version)
        key = self.hash_key if told["hashed"] else b""
        rules = Transform(current, told["epoch"], tuple(older), key)
        return rules if rules.generation.digest == generation else None

    def contract(self, digest_text: str, name: str) -> Contract | None:
        """The contract of this digest; without one, the newest used here of that name."""
        if digest_text in self.contracts:
            return self.contracts[digest_text]
        named = [contract for contract in self.contracts.values() if contract.name == name]
        return max(named, key=lambda contract: contract.version, default=None)


def gather(stores: Stores) -> Evidence:
    """Read every store. Lakes come first: what they have taken in is there then, or is gone."""
    rules = rules_of(stores.bucket, stores.contracts)
    lakes = lake_evidence.lakes(stores.bucket, partial(_of_lake, rules))
    notes = list(erasures.known(stores.bucket))
    read = partial(_read, stores.bucket, erasures.digests(notes))
    raws = list(read(f"{raw.PREFIX}/", _raw))
    landed = list(read(f"{landing.LANDING}/", partial(_landing, rules)))
    rejected = list(read(f"{landing.QUARANTINE}/", partial(_marked, QUARANTINE)))
    left_out = list(read(f"{landing.DROPPED}/", partial(_marked, DROPPED)))
    rows = _joined(LANDING, (table for _, table in landed))
    instead = lakes.instead(rows, {found.key for found, _ in landed})
    return Evidence(
        stores=stores,
        raw=_joined(RAW, (table for _, table in raws)),
        raw_tables={found.key: table for found, table in raws},
        landing=_joined(
            LANDING, [rows, *(more.select(LANDING.names).cast(LANDING) for more in instead)]
        ),
        quarantine=_joined(QUARANTINE, (table for _, table in rejected)),
        dropped=_joined(DROPPED, (table for _, table in left_out)),
        attempts=list(ledger.attempts(stores.ledger)),
        objects={found.key: found for found, _ in (*raws, *landed, *rejected, *left_out)},
        rules=rules,
        lakes=lakes,
        erasures=notes,
    )


def rules_of(bucket: Bucket, contracts: Iterable[Contract]) -> Rules:
    """The contracts given and all that the bucket keeps."""
    files = kept_contracts.files_in(bucket)
    kept = (
        parse_contract(bucket.get(key), key, files)
        for key in bucket.keys(f"{kept_contracts.PREFIX}/")
    )
    told = kept_contracts.generations(bucket)
    hashed = any(one["hashed"] for one in told.values())
    return Rules(
        {contract.digest: contract for contract in (*kept, *contracts)},
        told,
        control.hash_key(bucket) if hashed else b"",
    )


class _Reader(Protocol):
    def __call__(self, key: str, file: parquet.File) -> pa.Table: ...


def _read(
    bucket: Bucket, again: Mapping[str, set[str]], prefix: str, reader: _Reader
) -> Iterator[tuple[Object, pa.Table]]:
    """Objects under a prefix; `again` says what those hold that an erasure wrote again."""

    def one(key: str) -> tuple[Object, pa.Table]:
        data = bucket.get(key)
        named = {key.rpartition("/")[2].partition(".")[0], *again.get(key, ())}
        file = parquet.File(data)
        gone = int(file.metadata.get(erasures.ROWS, b"0"))
        sound = hashlib.sha256(data).hexdigest() in named
        return Object(key, file.rows + gone, len(data), sound, gone), reader(key, file)

    with ThreadPoolExecutor(READERS) as pool:
        yield from pool.map(one, list(bucket.keys(prefix)))


def _raw(key: str, file: parquet.File) -> pa.Table:
    table = file.read()
    erased = {index for index, _ in erased_of(table)}
    bodies = [
        None if index in erased else digest(body)
        for index, body in enumerate(table.column("_body").to_pylist())
    ]
    return pa.table(
        [
            *(table.column(name) for name in RAW_SCHEMA.names),
            _constant(key, table),
            pa.array(range(table.num_rows), pa.int32()),
            pa.array(bodies, pa.string()),
        ],
        schema=RAW.with_metadata(table.schema.metadata),
    )


def _landing(rules: Rules, key: str, file: parquet.File) -> pa.Table:
    """Rows with the hot items they want, by the contract that made the object."""
    table = file.read()
    name = key.split("/")[1]
    contract = rules.contract(file.metadata.get(landing.CONTRACT, b"").decode(), name)
    number = pa.array(range(table.num_rows), pa.int64())
    return _placed(table, key, number, contract)


def _placed(table: pa.Table, key: str, places: pa.Array, contract: Contract | None) -> pa.Table:
    common = [table.column(field.name) for field in ROW_FIELDS]
    columns = [*common, _constant(key, table), places, *_hot_columns(table, contract)]
    return pa.table(columns, schema=LANDING)


def _of_lake(rules: Rules, lake: Manifest, key: str, file: parquet.File) -> pa.Table:
    """Rows of a file of the lake (`OF_LAKE`), by the contract of each one's generation."""
    table = file.read()
    number = pa.array(range(table.num_rows), pa.int64())
    found = [OF_LAKE.empty_table()]
    for generation in table.column("_generation").unique().to_pylist():
        contract = rules.contract(lake.contracts.get(generation, ""), lake.contract)
        mask = pc.equal(table.column("_generation"), generation)
        rows = table.filter(mask)
        own = _placed(rows, key, number.filter(mask.combine_chunks()), contract)
        found.append(own.append_column(OF_LAKE.field("_hour"), _hours(rows, contract)))
    return pa.concat_tables(found)


def _hours(rows: pa.Table, contract: Contract | None) -> pa.Array | pa.ChunkedArray:
    """Hours of event time, since 1970."""
    if contract is None:
        return pa.nulls(rows.num_rows, pa.int64())
    hours = pc.floor_temporal(rows.column(contract.event_time), unit="hour").cast(pa.int64())
    return pc.divide(hours, HOUR_MICROS)


def _hot_columns(table: pa.Table, contract: Contract | None) -> list[pa.Array]:
    count = table.num_rows
    if contract is None:
        nothing = pa.nulls(count, pa.string())
        no = repeated(value=False, kind=pa.bool_(), count=count)
        return [nothing, nothing, no, no, _never(count)]
    keys = hot.keys_of(table, contract)
    ttl = contract.hot_ttl_seconds
    expires = _never(count)
    if ttl is not None:
        moments = table.column(contract.event_time).cast(pa.int64())
        expires = pc.add(moments, ttl * MICROS).combine_chunks()
    return [
        pa.array([pk for pk, _ in keys], pa.string()),
        pa.array([sk for _, sk in keys], pa.string()),
        hot_mask(table, contract),
        repeated(contract.latest, pa.bool_(), count),
        expires,
    ]


def _never(count: int) -> pa.Array:
    return pa.nulls(count, pa.int64())


def _marked(schema: pa.Schema, key: str, file: parquet.File) -> pa.Table:
    """Rows of a schema that has the object's key behind their own columns."""
    table = file.read()
    columns = [table.column(name) for name in schema.names[:-1]]
    return pa.table([*columns, _constant(key, table)], schema=schema)


def _constant(text: str, table: pa.Table) -> pa.Array:
    return pa.repeat(pa.scalar(text, pa.string()), table.num_rows)


def _joined(schema: pa.Schema, tables: Iterable[pa.Table]) -> pa.Table:
    return pa.concat_tables([schema.empty_table(), *tables])
