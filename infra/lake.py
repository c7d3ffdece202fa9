"""A state's objects and tables as Arrow tables and SQL views: what `query` and accounts read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date, time
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa

from infra.views import NAMES, Views, lineage, objects, rows_of
from sinks import landing, ledger, raw
from sinks.bucket import Bucket
from sinks.lake import manifest
from sinks.lake.resolve import HOUR_MICROS
from sinks.lake.workspace import workspace
from sinks.table import Table
from transform.contract import Contract
from transform.records import DROPPED_SCHEMA, QUARANTINE_SCHEMA, RAW_SCHEMA

INTERRUPT_SECONDS = 0.1
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
        schema = contract.landing_schema()
        return objects(self._bucket, landing.LANDING, contract, schema, keys)

    def quarantine(self, contract: Contract, keys: Iterable[str] | None = None) -> pa.Table:
        """Every quarantined row of a contract, or of some objects."""
        return objects(self._bucket, landing.QUARANTINE, contract, QUARANTINE_SCHEMA, keys)

    def dropped(self, contract: Contract, keys: Iterable[str] | None = None) -> pa.Table:
        """Every mark of what a contract's rules dropped, or those of some objects."""
        return objects(self._bucket, landing.DROPPED, contract, DROPPED_SCHEMA, keys)

    def raw(self) -> pa.Table:
        """Every archived source record, with its object and its place in it."""
        return rows_of(self._bucket, list(self._bucket.keys(f"{raw.PREFIX}/")), RAW_SCHEMA)

    def ledger(self) -> pa.Table:
        """Every attempt."""
        rows = [
            {**asdict(a), "retry": [list(span) for span in a.retry]}
            for a in ledger.attempts(self._ledger)
        ]
        return pa.Table.from_pylist(rows, schema=LEDGER_SCHEMA)

    def query(self, sql: str) -> pa.Table:
        """The answer to one SQL statement over the views it names (`infra.views`).

        Besides there are `ledger`, `raw`, and one view named after each contract (with `_` for
        `-`), which are its records. Raises `QueryError`.
        """
        if not sql.strip():
            raise QueryError("there is no SQL; try: SELECT * FROM records LIMIT 5")
        with self._asked() as (connection, views):
            named = set(re.findall(r"[a-z_][a-z0-9_]*", sql.lower()))
            if not named.isdisjoint(CATALOG_WORDS):
                named.update(NAMES)
            views.make({c.name.replace("-", "_"): c for c in self._contracts}, named)
            if "ledger" in named:
                connection.register("ledger", self.ledger())
            if "raw" in named:
                connection.register("raw", self.raw())
            found = _answer(connection, sql)
        return found.rename_columns(_distinct(found.column_names))

    def of_device(self, contract: Contract, device: str, low: int, high: int) -> pa.Table:
        """What `records` says of a device from event time `low` to before `high`, in its order.

        Times are microseconds since 1970. Of the lake only the hours of the span are read.
        """
        hours = range(low // HOUR_MICROS, -(-high // HOUR_MICROS))
        with self._asked() as (connection, views):
            rows = views.within(contract, hours)
            name = device.replace("'", "''")
            return connection.sql(
                f"SELECT * FROM ({rows}) WHERE \"{contract.device}\" = '{name}' "
                f'AND "{contract.event_time}" >= make_timestamptz({low}) '
                f'AND "{contract.event_time}" < make_timestamptz({high}) '
                f'ORDER BY "{contract.event_time}", _record_id, _digest'
            ).to_arrow_table()

    @contextmanager
    def _asked(self) -> Iterator[tuple[duckdb.DuckDBPyConnection, Views]]:
        """A connection that is gone afterwards, and the views that it may get."""
        with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            yield connection, Views(self._bucket, connection)

    def lineage(self, contract: Contract) -> pa.Table:
        """What law 5 asks of every delivered row: those of the lake, and fresh ones."""
        with workspace(self._bucket) as work:
            return lineage(work, contract, manifest.read(self._bucket, contract.name))


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
