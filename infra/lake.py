"""A state's objects and tables as Arrow tables and SQL views: what `query` and accounts read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict
from datetime import date, time
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa

from infra import clocks
from sinks import distinct, landing, ledger, raw
from sinks.bucket import Bucket
from sinks.table import Table
from transform.contract import Contract
from transform.records import DROPPED_SCHEMA, QUARANTINE_SCHEMA, RAW_SCHEMA

READERS = 8
INTERRUPT_SECONDS = 0.1
VIEWS = ("records", "quarantine", "dropped", clocks.VIEW, "ledger", "raw")
CATALOG_WORDS = ("show", "information_schema")  # SQL that asks which views there are


class QueryError(ValueError):
    """SQL that cannot be answered, in DuckDB's words."""


class Lake:
    """What lies in a bucket and a ledger, for the given contracts."""

    def __init__(self, bucket: Bucket, ledger_table: Table, contracts: Sequence[Contract]) -> None:
        self._bucket = bucket
        self._ledger = ledger_table
        self._contracts = contracts

    def landing(self, contract: Contract, keys: Iterable[str] | None = None) -> pa.Table:
        """Every landing row of a contract, or of some objects; older versions' columns are kept."""
        return self._rows(f"{landing.LANDING}/{contract.name}/", contract.landing_schema(), keys)

    def quarantine(self, contract: Contract, keys: Iterable[str] | None = None) -> pa.Table:
        """Every quarantined row of a contract, or of some objects."""
        return self._rows(f"{landing.QUARANTINE}/{contract.name}/", QUARANTINE_SCHEMA, keys)

    def dropped(self, contract: Contract, keys: Iterable[str] | None = None) -> pa.Table:
        """Every mark of what a contract's rules dropped, or those of some objects."""
        return self._rows(f"{landing.DROPPED}/{contract.name}/", DROPPED_SCHEMA, keys)

    def raw(self) -> pa.Table:
        """Every archived source record, with its object and its place in it."""
        return self._rows(f"{raw.PREFIX}/", RAW_SCHEMA, None)

    def ledger(self) -> pa.Table:
        """Every attempt."""
        rows = [
            {**asdict(a), "retry": [list(span) for span in a.retry]}
            for a in ledger.attempts(self._ledger)
        ]
        return pa.Table.from_pylist(rows, schema=LEDGER_SCHEMA)

    def query(self, sql: str) -> pa.Table:
        """The answer to one SQL statement over the views it names.

        Views: `records`, `quarantine`, `dropped`, `device_clocks`, `ledger`, `raw`, and one named
        after each contract (with `_` for `-`), which are its records. Raises `QueryError`.
        """
        if not sql.strip():
            raise QueryError("there is no SQL; try: SELECT * FROM records LIMIT 5")
        with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            named = set(re.findall(r"[a-z_][a-z0-9_]*", sql.lower()))
            if not named.isdisjoint(CATALOG_WORDS):
                named.update(VIEWS)
            self._register(connection, named)
            found = _answer(connection, sql)
        return found.rename_columns(_distinct(found.column_names))

    def _register(self, connection: duckdb.DuckDBPyConnection, named: set[str]) -> None:
        """Make the views that the SQL may name, and read no more than they need."""
        own = {contract.name.replace("-", "_"): contract for contract in self._contracts}
        rejects, drops, skews = [], [], []
        schemas: dict[str, pa.Schema] = {}
        for view, contract in own.items():
            if named.isdisjoint({view, "records", "quarantine", "dropped", clocks.VIEW}):
                continue
            rows = self.landing(contract)
            schemas[view] = rows.schema
            connection.register(f"_landing_{view}", rows)
            connection.register(f"_quarantine_{view}", self.quarantine(contract))
            connection.register(f"_dropped_{view}", self.dropped(contract))
            tables = distinct.Tables(f"_landing_{view}", f"_quarantine_{view}", f"_dropped_{view}")
            shown = _readable(tables.records())
            connection.execute(f"CREATE VIEW _records_{view} AS {shown}")
            if view not in VIEWS:
                connection.execute(f'CREATE VIEW "{view}" AS SELECT * FROM _records_{view}')
            rejects.append(_readable(tables.set_aside()))
            drops.append(tables.left_out())
            skews.append(clocks.device_clocks(contract, f"_records_{view}"))
        if "records" in named and own:
            as_text = _clashing(schemas.values())
            parts = [
                f"SELECT {_with_text(as_text & set(schema.names))} FROM _records_{view}"
                for view, schema in schemas.items()
            ]
            connection.execute("CREATE VIEW records AS " + " UNION ALL BY NAME ".join(parts))
        if "quarantine" in named and rejects:
            connection.execute("CREATE VIEW quarantine AS " + " UNION ALL ".join(rejects))
        if "dropped" in named and drops:
            connection.execute("CREATE VIEW dropped AS " + " UNION ALL ".join(drops))
        if clocks.VIEW in named and skews:
            connection.execute(f"CREATE VIEW {clocks.VIEW} AS " + " UNION ALL ".join(skews))
        if "ledger" in named:
            connection.register("ledger", self.ledger())
        if "raw" in named:
            connection.register("raw", self.raw())

    def _rows(self, prefix: str, schema: pa.Schema, keys: Iterable[str] | None) -> pa.Table:
        found = list(self._bucket.keys(prefix) if keys is None else keys)
        with ThreadPoolExecutor(READERS) as pool:
            tables = list(pool.map(lambda key: landing.read(self._bucket, key), found))
        return _joined([schema.empty_table(), *tables])


def _readable(sql: str) -> str:
    """The same rows, their digests as people and JSON write them."""
    return f"SELECT * REPLACE (lower(hex(_digest)) AS _digest) FROM ({sql})"


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables one below the other. A column whose type changed from one to another is text."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowTypeError:
        changed = _clashing(table.schema for table in tables)
        tables = [_as_text(table, changed) for table in tables]
        return pa.concat_tables(tables, promote_options="permissive")


def _clashing(schemas: Iterable[pa.Schema]) -> set[str]:
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


def _distinct(names: Sequence[str]) -> list[str]:
    """Column names, the second of a name with `_1` behind it, as DuckDB itself shows them."""
    taken: list[str] = []
    for name in names:
        number = 0
        fresh = name
        while fresh in taken or (number and fresh in names):
            number += 1
            fresh = f"{name}_{number}"
        taken.append(fresh)
    return taken


def _answer(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """In a thread of its own, for DuckDB itself does not always listen to Ctrl-C."""

    def answer() -> pa.Table:
        # A COPY, say, gives no relation, which DuckDB's stubs do not know.
        relation: duckdb.DuckDBPyRelation | None = connection.sql(sql)
        return pa.table({}) if relation is None else relation.to_arrow_table()

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(answer)
        try:
            return working.result()
        except duckdb.Error as error:
            raise QueryError(str(error)) from None
        except KeyboardInterrupt:
            while not working.done():  # it may not have begun to listen yet
                connection.interrupt()
                wait([working], INTERRUPT_SECONDS)
            raise


_LEDGER_TYPES = {
    "int": pa.int64(),
    "str": pa.string(),
    "tuple[str, ...]": pa.list_(pa.string()),
    "tuple[tuple[int, int], ...]": pa.list_(pa.list_(pa.int64())),
}
LEDGER_SCHEMA = pa.schema(
    [(name, _LEDGER_TYPES[kind]) for name, kind in ledger.Attempt.__annotations__.items()]
)


def plain(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as JSON can hold them: times as ISO text, bytes as text or, if they are not, as hex."""
    columns = [map(_plain, _values(column)) for column in table.columns]
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(column: pa.ChunkedArray) -> list[Any]:
    """A column's values; as text where Python has no such times (nanoseconds, the year 20000)."""
    try:
        return column.to_pylist()  # type: ignore[no-any-return]
    except (ValueError, OverflowError):
        return column.cast(pa.string()).to_pylist()  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:  # noqa: PLR0911  one line for each kind of value
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Decimal():  # DuckDB sums integers into 38 digits
            return int(value) if value == value.to_integral_value() else float(value)
        case bytes():
            return _text(value)
        case dict():
            return {str(name): _plain(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case date() | time():
            return value.isoformat().replace("+00:00", "Z")
    return str(value)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.hex()
