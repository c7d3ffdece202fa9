"""The views that SQL is asked over: records, sealed, quarantine, partitions and the others.

Records are read as `sinks.lake.reader` has them: files of the lake, and what they do not hold yet
as rows. A view costs what it reads, so only those that a statement may name are made.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from infra import clocks
from sinks import distinct, landing
from sinks.bucket import Bucket
from sinks.lake import far, manifest, reader
from sinks.lake.columns import Clash
from sinks.lake.manifest import Manifest
from sinks.lake.reader import Snapshot
from sinks.lake.resolve import HOUR_MICROS
from sinks.lake.workspace import Limits, Workspace, workspace
from sinks.landing import DROPPED, LANDING, QUARANTINE
from transform.contract import Contract
from transform.records import DROPPED_SCHEMA, QUARANTINE_SCHEMA, UTC_MICROS

if TYPE_CHECKING:
    import duckdb

RECORDS, SEALED, PARTITIONS, FRESHNESS = "records", "sealed", "partitions", "freshness"
MARKS = (QUARANTINE, DROPPED)
VIEWS = (RECORDS, SEALED, QUARANTINE, DROPPED, clocks.VIEW, PARTITIONS, FRESHNESS)
NAMES = (*VIEWS, "ledger", "raw")
"""All names that SQL knows, besides those of contracts."""
READERS = 8
MEMORY_MB = 2_048
LIMITS = Limits(MEMORY_MB, os.cpu_count() or 1)
LINEAGE = (
    *("_stream", "_shard", "_sequence", "_arrival", "_sub", "_child", "_elements"),
    *("_epoch", "_version", "_generation", "_raw", "_index"),
)

_PARTITIONS = pa.schema(
    [
        pa.field("_contract", pa.string()),
        pa.field("hour", UTC_MICROS),
        pa.field("rows", pa.int64()),
        pa.field("ids", pa.int64()),
        pa.field("conflicts", pa.int64()),
        pa.field("digest", pa.string()),
        pa.field("files", pa.int64()),
        pa.field("bytes", pa.int64()),
        pa.field("last_arrival", UTC_MICROS),
        pa.field("sealed_as_of", UTC_MICROS),
        pa.field("seal_exact", pa.bool_()),
        pa.field("known_missing", pa.int64()),
        pa.field("changed_since", pa.bool_()),  # fresh rows are in it, which the lake has not
    ]
)
_FRESHNESS = pa.schema(
    [
        pa.field("_contract", pa.string()),
        pa.field("lake_version", pa.int64()),
        pa.field("compacted_at", UTC_MICROS),
        pa.field("lake_rows", pa.int64()),
        pa.field("fresh_rows", pa.int64()),  # not in the lake yet, each once
        pa.field("newest_arrival", UTC_MICROS),
        pa.field("seconds_behind", pa.float64()),  # from the newest arrival to now
        pa.field("sealed_hours", pa.int64()),
        pa.field("sealed_until", UTC_MICROS),  # end of the last hour before the first open one
    ]
)


@dataclass(frozen=True)
class Opened:
    """A contract's records as a query's connection can read them. `sql` selects all of them."""

    snapshot: Snapshot
    sql: str


class Views:
    """Makes views in a connection."""

    def __init__(self, bucket: Bucket, db: duckdb.DuckDBPyConnection) -> None:
        self._bucket, self._db = bucket, db

    def make(self, contracts: Mapping[str, Contract], named: set[str]) -> None:
        """Make the views of these names, and those that are called as a contract is."""
        self._records(contracts, named)
        if SEALED in named:
            every = contracts.values()
            self._united(SEALED, [self._opened(c, reader.sealed, SEALED) for c in every])
        if not named.isdisjoint(MARKS) and contracts:
            tables = [self._tables(contract) for contract in contracts.values()]
            aside = " UNION ALL ".join(_readable(one.set_aside()) for one in tables)
            out = " UNION ALL ".join(one.left_out() for one in tables)
            self._db.execute(f"CREATE VIEW {QUARANTINE} AS {aside}")
            self._db.execute(f"CREATE VIEW {DROPPED} AS {out}")
        for name, maker_of in ((PARTITIONS, self._partitions), (FRESHNESS, self._freshness)):
            if name in named:
                self._db.register(name, maker_of(contracts.values()))

    def within(self, contract: Contract, hours: Collection[int]) -> str:
        """SQL for a contract's records of some hours of event time, since 1970, and maybe more."""
        return self._opened(contract, partial(reader.snapshot, within=hours), "within").sql

    def _records(self, contracts: Mapping[str, Contract], named: set[str]) -> None:
        wanted = {RECORDS, clocks.VIEW}
        opened: list[Opened] = []
        skews: list[str] = []
        for view, contract in contracts.items():
            if named.isdisjoint({view, *wanted}):
                continue
            found = self._opened(contract, reader.snapshot, RECORDS)
            self._db.execute(f"CREATE VIEW _records_{view} AS {found.sql}")
            if view not in NAMES:
                self._db.execute(f'CREATE VIEW "{view}" AS SELECT * FROM _records_{view}')
            opened.append(found)
            skews.append(clocks.device_clocks(contract, f"_records_{view}"))
        if RECORDS in named:
            self._united(RECORDS, opened)
        if clocks.VIEW in named and skews:
            self._db.execute(f"CREATE VIEW {clocks.VIEW} AS {' UNION ALL '.join(skews)}")

    def _united(self, view: str, opened: Sequence[Opened]) -> None:
        """Several contracts' rows as one view. A column of types that do not fit is text."""
        if not opened:
            return
        as_text = clashing(one.snapshot.schema for one in opened)
        parts = [
            f"SELECT {_with_text(as_text & set(one.snapshot.schema.names))} FROM ({one.sql})"
            for one in opened
        ]
        self._db.execute(f"CREATE VIEW {view} AS {' UNION ALL BY NAME '.join(parts)}")

    def _opened(
        self, contract: Contract, read: Callable[[Workspace, Contract], Snapshot], name: str
    ) -> Opened:
        """A snapshot's rows as SQL, its digests as people and JSON write them."""
        with workspace(self._bucket, LIMITS) as work:
            try:
                found = read(work, contract)
            except Clash:  # then nothing of it was ever compacted
                found = self._by_rule(contract)
        view = f"{name}_{contract.name.replace('-', '_')}"
        self._db.register(f"_tail_{view}", found.tail)
        rows = f"FROM _tail_{view}"
        if found.files:
            files = far.dataset(self._bucket, found.files, found.schema, contract.event_time)
            self._db.register(f"_files_{view}", files)
            rows += f" UNION ALL BY NAME FROM _files_{view}"
        return Opened(found, _readable(rows))

    def _by_rule(self, contract: Contract) -> Snapshot:
        """The same by law 5 alone, where versions have a column by different types: it is text."""
        tables = self._tables(contract)
        rows = objects(self._bucket, LANDING, contract, contract.landing_schema())
        self._db.register(tables.landing, rows)
        tail = self._db.sql(tables.records()).to_arrow_table()
        return Snapshot(Manifest(contract.name), (), tail, tail.schema, ())

    def _tables(self, contract: Contract) -> distinct.Tables:
        """What law 5 is about, for what was set aside or left out."""
        view = contract.name.replace("-", "_")
        names = {kind: f"_{kind}_{view}" for kind in (LANDING, *MARKS)}
        with workspace(self._bucket, LIMITS) as work:
            rows = lineage(work, contract, manifest.read(self._bucket, contract.name))
        self._db.register(names[LANDING], rows)
        for kind, schema in ((QUARANTINE, QUARANTINE_SCHEMA), (DROPPED, DROPPED_SCHEMA)):
            self._db.register(names[kind], objects(self._bucket, kind, contract, schema))
        return distinct.Tables(*names.values())

    def _partitions(self, contracts: Iterable[Contract]) -> pa.Table:
        rows = []
        for contract in contracts:
            found = self._opened(contract, reader.snapshot, PARTITIONS).snapshot
            rows += [_partition(found, part) for part in found.lake.partitions]
        return pa.Table.from_pylist(rows, schema=_PARTITIONS)

    def _freshness(self, contracts: Iterable[Contract]) -> pa.Table:
        rows = []
        for contract in contracts:
            opened = self._opened(contract, reader.snapshot, FRESHNESS)
            newest = self._db.sql(f"SELECT epoch_us(max(_arrival)) FROM ({opened.sql})").fetchall()
            rows.append(_fresh(opened.snapshot, newest[0][0]))
        return pa.Table.from_pylist(rows, schema=_FRESHNESS)


def lineage(work: Workspace, contract: Contract, lake: Manifest) -> pa.Table:
    """What law 5 asks of every delivered row, those of the lake and fresh ones."""
    held = [f.key for part in lake.partitions for f in (*part.files, *part.repeats)]
    fresh = [one.key for one in reader.fresh(work.bucket, lake) if one.landed]
    rows = work.read([*held, *fresh], ", ".join(LINEAGE))
    schema = contract.landing_schema()
    empty = pa.schema([schema.field(name) for name in LINEAGE]).empty_table()
    return work.db.sql(rows).to_arrow_table() if rows else empty


def objects(
    bucket: Bucket,
    kind: str,
    contract: Contract,
    schema: pa.Schema,
    keys: Iterable[str] | None = None,
) -> pa.Table:
    """Every row of a contract's objects of a kind, or of some of them; all their columns."""
    found = list(bucket.keys(f"{kind}/{contract.name}/") if keys is None else keys)
    return rows_of(bucket, found, schema)


def rows_of(bucket: Bucket, keys: Sequence[str], schema: pa.Schema) -> pa.Table:
    """Every row of some objects, whose columns are at least a schema's."""
    with ThreadPoolExecutor(READERS) as pool:
        tables = list(pool.map(lambda key: landing.read(bucket, key), keys))
    return joined([schema.empty_table(), *tables])


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables one below the other. A column whose type changed from one to another is text."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowTypeError:
        changed = clashing(table.schema for table in tables)
        tables = [_as_text(table, changed) for table in tables]
        return pa.concat_tables(tables, promote_options="permissive")


def clashing(schemas: Iterable[pa.Schema]) -> set[str]:
    """Columns that are of types which have nothing but their text in common."""
    types: dict[str, set[pa.DataType]] = {}
    for schema in schemas:
        for field in schema:
            kind = pa.float64() if pa.types.is_integer(field.type) else field.type
            types.setdefault(field.name, set()).add(kind)
    return {name for name, kinds in types.items() if len(kinds) > 1}


def _with_text(names: set[str]) -> str:
    """A SELECT list: all columns, these as text."""
    casts = ", ".join(f'"{name}"::VARCHAR AS "{name}"' for name in sorted(names))
    return f"* REPLACE ({casts})" if casts else "*"


def _as_text(table: pa.Table, names: Iterable[str]) -> pa.Table:
    for name in set(names).intersection(table.column_names):
        at = table.column_names.index(name)
        table = table.set_column(at, name, table.column(at).cast(pa.string()))
    return table


def _readable(sql: str) -> str:
    """The same rows, their digests as people and JSON write them."""
    return f"SELECT * REPLACE (lower(hex(_digest)) AS _digest) FROM ({sql})"


def _partition(found: Snapshot, part: manifest.Partition) -> dict[str, object]:
    seal = part.seal
    return {
        "_contract": found.lake.contract,
        "hour": part.hour * HOUR_MICROS,
        "rows": part.rows,
        "ids": part.ids,
        "conflicts": part.conflicts,
        "digest": part.digest,
        "files": len(part.files),
        "bytes": sum(file.bytes for file in part.files),
        "last_arrival": part.last_arrival,
        "sealed_as_of": seal and seal.as_of,
        "seal_exact": seal and seal.exact,
        "known_missing": seal and seal.missing,
        "changed_since": part.hour in found.changed,
    }


def _fresh(found: Snapshot, newest: int | None) -> dict[str, object]:
    lake = found.lake
    now = int(datetime.now(UTC).timestamp() * 1e6)
    open_hours = [part.hour for part in lake.partitions if not part.seal]
    sealed = [part.hour for part in lake.partitions if part.seal]
    done = [hour for hour in sealed if hour < min(open_hours, default=hour + 1)]
    return {
        "_contract": lake.contract,
        "lake_version": lake.version,
        "compacted_at": lake.made_at or None,
        "lake_rows": lake.rows,
        "fresh_rows": found.tail.num_rows,
        "newest_arrival": newest,
        "seconds_behind": None if newest is None else (now - newest) / 1e6,
        "sealed_hours": len(sealed),
        "sealed_until": (max(done) + 1) * HOUR_MICROS if done else None,
    }
