"""What law 5 makes of everything a contract's landing, quarantine and dropped objects say.

Only lineage is read of a landing object, so a run over many costs little. For operators' tools: it
reads every object, where a path would follow the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from sinks import distinct, landing
from sinks.bucket import Bucket
from sinks.lake import instead
from sinks.ledger import Attempt
from transform.contract import Contract
from transform.erased import RULE
from transform.records import DROPPED_SCHEMA, POSITION, QUARANTINE_SCHEMA, ROW_FIELDS

Place = tuple[str, str, str]

LANDED = pa.schema(ROW_FIELDS)
PLACED = pa.schema(
    [
        *(
            LANDED.field(name)
            for name in (
                *("_stream", "_shard", "_sequence", "_sub", "_child", "_elements"),
                *("_epoch", "_version", "_generation", "_raw", "_index", "_arrival"),
            )
        ),
        pa.field("_object", pa.string()),
        pa.field("_row", pa.int64()),
    ]
)
TABLES = distinct.Tables("landed", "rejected", "dropped")
_WITH_FATE = f"""
    SELECT {distinct.POSITION}
    FROM (
        SELECT {distinct.ELEMENT}, _generation, _elements FROM landed
        UNION ALL
        SELECT {distinct.ELEMENT}, _generation, _elements FROM rejected
        UNION ALL
        SELECT {distinct.ELEMENT}, _generation, _elements FROM dropped
    )
    GROUP BY {distinct.POSITION}, _generation
    HAVING count(DISTINCT (_sub, _child)) >= max(_elements)
"""
_OPEN = f"""
    SELECT {distinct.POSITION}, epoch_us(_arrival) AS _arrival, _raw, _index, _generation,
        _step, _reason, _field, _detail
    FROM ({TABLES.set_aside()})
    ORDER BY _arrival, {distinct.ELEMENT}
"""


@dataclass(frozen=True)
class Fates:
    """Lineage of every landing row, every quarantine row and every dropped mark of a contract."""

    landed: pa.Table
    rejected: pa.Table
    dropped: pa.Table

    def places(self) -> set[Place]:
        """Positions with a fate: some generation wrote all their elements."""
        return set(self.ask(_WITH_FATE).fetchall())

    def erased(self) -> set[Place]:
        """Positions of which something was erased: what is parked of them is to stay away."""
        sql = f"SELECT DISTINCT {distinct.POSITION} FROM dropped WHERE _rule = '{RULE}'"
        return set(self.ask(sql).fetchall())

    def open_rows(self) -> Iterator[dict[str, Any]]:
        """The quarantine rows that stand by law 5, oldest arrival first."""
        yield from self.ask(_OPEN).to_arrow_table().to_pylist()

    def ask(self, sql: str, **tables: pa.Table) -> duckdb.DuckDBPyRelation:
        """Ask SQL over `landed`, `rejected` and `dropped`, and further tables by name."""
        connection = duckdb.connect()
        connection.execute("SET TimeZone = 'UTC'")
        for name, table in {**vars(self), **tables}.items():
            connection.register(name, table)
        return connection.sql(sql)


def read(bucket: Bucket, contract: Contract, *, past: bool = False) -> Fates:
    """The fates of a contract, as of now: of what landed and is gone, the lake has the rows.

    `past` asks for rows as well that have lost their place in it in the last days.
    """
    there = list(bucket.keys(f"{landing.LANDING}/{contract.name}/"))
    in_lake = instead.files(bucket, contract.name, there, past=past)
    return Fates(
        _rows(bucket, [*there, *in_lake], LANDED),
        _rows(bucket, bucket.keys(f"{landing.QUARANTINE}/{contract.name}/"), QUARANTINE_SCHEMA),
        _rows(bucket, bucket.keys(f"{landing.DROPPED}/{contract.name}/"), DROPPED_SCHEMA),
    )


def placed(bucket: Bucket, keys: Iterable[str]) -> Iterator[tuple[str, pa.Table]]:
    """What law 5 asks of each row of some objects (`PLACED`), by the object that has it."""
    for key in keys:
        rows = landing.read(bucket, key, PLACED.names[:-2])
        own = [pa.repeat(key, rows.num_rows), pa.array(range(rows.num_rows), pa.int64())]
        yield key, pa.table([*rows.columns, *own], PLACED.names).cast(PLACED)


def reported(bucket: Bucket, contract: Contract, attempts: Iterable[Attempt]) -> set[Place]:
    """Positions whose fate an attempt came to tell: it has rows of theirs, and is done with them.

    Rows alone do not say so: an attempt may land a record and end, and its hot item is owed by
    nobody then.
    """
    done: dict[str, set[int]] = {}
    done_of: dict[tuple[str, str], set[int]] = {}  # in a lake rows tell whose they are, not where
    for attempt in attempts:
        for key in attempt.objects:
            done.setdefault(key, set()).update(attempt.done)
        made = (attempt.raw_key, attempt.generation)
        done_of.setdefault(made, set()).update(attempt.done)
    found: set[Place] = set()
    names = ("_raw", "_generation", "_index", *POSITION)
    there = [
        key
        for prefix in (landing.LANDING, landing.QUARANTINE, landing.DROPPED)
        for key in bucket.keys(f"{prefix}/{contract.name}/")
    ]
    in_lake = instead.files(bucket, contract.name, there)
    for key, rows in placed(bucket, [*there, *in_lake]):
        told = None if key in in_lake else done.get(key, set())
        columns = (rows.column(name).to_pylist() for name in names)
        for raw, generation, index, *place in zip(*columns, strict=True):
            if index in (done_of.get((raw, generation), ()) if told is None else told):
                found.add((place[0], place[1], place[2]))
    return found


def _rows(bucket: Bucket, keys: Iterable[str], schema: pa.Schema) -> pa.Table:
    tables: Sequence[pa.Table] = [
        landing.read(bucket, key, schema.names).cast(schema) for key in keys
    ]
    return pa.concat_tables([schema.empty_table(), *tables])
