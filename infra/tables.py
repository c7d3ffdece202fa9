"""Every store as a table of one database, on which the checks of a proof are asked.

`VIEWS` of both modules of checks are made on them; among them is what the rules make of raw when
they are applied again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from infra import lake_checks
from infra.checks import VIEWS
from infra.evidence import OF_LAKE, Evidence, Stores
from infra.parked import digest
from sinks import ledger
from sinks.ledger import Attempt
from sinks.table import Key
from transform.erased import erased_of
from transform.pipeline import Transform
from transform.records import DIGEST

DIGITS = 128  # sequence numbers have more digits than an integer type: they are compared as text


@dataclass(frozen=True)
class Again:
    """What the rules make of raw when they are applied again."""

    table: pa.Table
    judged: int
    unknown: dict[str, int]


EXPECTED = pa.schema(
    [
        ("_raw", pa.string()),
        ("_index", pa.int32()),
        ("_sub", pa.int32()),
        ("_child", pa.int32()),
        ("_generation", pa.string()),
        ("_digest", DIGEST),
        ("verdict", pa.string()),  # delivered, dropped, or the reason
    ]
)
OBJECTS = pa.schema(
    [
        ("key", pa.string()),
        ("rows", pa.int64()),
        ("bytes", pa.int64()),
        ("sound", pa.bool_()),
        ("erased", pa.int64()),
    ]
)
ERASED = pa.schema([("_raw", pa.string()), ("_index", pa.int32()), ("_sub", pa.int32())])
HANDED_BACK = pa.schema([("execution", pa.string()), ("low", pa.int64()), ("high", pa.int64())])
KEYS = pa.schema([("_contract", pa.string()), ("_pk", pa.string()), ("_sk", pa.string())])
ATTEMPTS = pa.schema(
    [
        (name, pa.int64() if kind == "int" else pa.string())
        for name, kind in Attempt.__annotations__.items()
        if name not in ("retry", "repair")
    ]
)


@contextmanager
def loaded(evidence: Evidence) -> Iterator[tuple[duckdb.DuckDBPyConnection, Again]]:
    """Every store as a table, and `infra.checks.VIEWS` on them."""
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        yield db, _load(db, evidence)


def _load(db: duckdb.DuckDBPyConnection, evidence: Evidence) -> Again:
    stores = evidence.stores
    again = judged_again(evidence)
    parked = stores.parked.rows
    shas = [digest(body) for body in parked.column("_body").to_pylist()]
    names = ATTEMPTS.names
    attempts = [{name: getattr(a, name) for name in names} for a in evidence.attempts]
    tables = {
        "raw_rows": evidence.raw.drop_columns(["_body"]),
        "landing": evidence.landing,
        "quarantine": evidence.quarantine.drop_columns(["_body"]),
        "left_out": evidence.dropped,
        "parked_rows": parked.drop_columns(["_body"]).append_column("_sha", [shas]),
        "attempts": pa.Table.from_pylist(attempts, ATTEMPTS),
        "handed_back": _handed_back(evidence.attempts),
        "objects": pa.Table.from_pylist([vars(o) for o in evidence.objects.values()], OBJECTS),
        "held": stores.held.records,
        "hot_items": _keys(stores),
        "expected": again.table,
        "owed": _owed(evidence),
        "passed": _passed(stores),
        "queues": _queues(stores),
        "pointers": _pointers(stores),
        "judged": _judged(again, evidence),
        "lake_rows": pa.concat_tables([OF_LAKE.empty_table(), *evidence.lakes.rows]),
        "lake_files": evidence.lakes.files,
        "lake_partitions": evidence.lakes.partitions,
        "taken": evidence.lakes.taken,
        "erased": _erased(evidence),
    }
    for name, table in tables.items():
        db.register(f"_{name}", table)
        db.execute(f"CREATE TABLE {name} AS FROM _{name}")
        db.unregister(f"_{name}")
    db.execute(f"CREATE MACRO now_micros() AS {stores.now_micros}")
    for name, sql in {**lake_checks.VIEWS, **VIEWS}.items():
        db.execute(f"CREATE TABLE {name} AS {sql}")
    return again


def judged_again(evidence: Evidence) -> Again:
    """Raw under each generation that rows or attempts name, by the rules where they are here."""
    asked: dict[tuple[str, int, str], int] = {}
    for table in (evidence.landing, evidence.quarantine, evidence.dropped):
        grouped = table.group_by(["_raw", "_epoch", "_generation"]).aggregate([([], "count_all")])
        for row in grouped.to_pylist():
            made = (row["_raw"], row["_epoch"], row["_generation"])
            asked[made] = asked.get(made, 0) + row["count_all"]
    for attempt in evidence.attempts:
        asked.setdefault((attempt.raw_key, attempt.epoch, attempt.generation), 0)
    unknown: Counter[str] = Counter()
    tables = [EXPECTED.empty_table()]
    judged = 0
    for (key, epoch, generation), rows in asked.items():
        rules, source = evidence.rules.of(epoch, generation), evidence.raw_tables.get(key)
        if rules is None and rows:
            unknown[generation] += rows
        if rules is not None and source is not None:
            tables.append(_verdicts(rules, source, key))
            judged += source.num_rows
    return Again(pa.concat_tables(tables), judged, dict(unknown))


def _verdicts(rules: Transform, source: pa.Table, key: str) -> pa.Table:
    batch = rules.apply(source, key)
    names = EXPECTED.names[:-1]
    good = pa.repeat(pa.scalar("delivered"), batch.rows.num_rows)
    bad = batch.rejects.column("_reason")
    dropped = pa.repeat(pa.scalar("dropped"), batch.drops.num_rows)
    drops = batch.drops.append_column("_digest", pa.nulls(batch.drops.num_rows, DIGEST))
    told = ((batch.rows, good), (batch.rejects, bad), (drops, dropped))
    return pa.concat_tables(
        [pa.table([*of.select(names).columns, said], schema=EXPECTED) for of, said in told]
    )


def _judged(again: Again, evidence: Evidence) -> pa.Table:
    """Which generations were judged again, by their digests."""
    known = {
        attempt.generation
        for attempt in evidence.attempts
        if evidence.rules.of(attempt.epoch, attempt.generation)
    }
    known |= set(again.table.column("_generation").unique().to_pylist())
    return pa.table({"_generation": pa.array(sorted(known), pa.string())})


def _erased(evidence: Evidence) -> pa.Table:
    """What raw objects say is erased of them; `_sub` is less than 0 where a whole body is empty."""
    rows = [
        {"_raw": key, "_index": index, "_sub": sub}
        for key, table in evidence.raw_tables.items()
        for index, sub in erased_of(table)
    ]
    return pa.Table.from_pylist(rows, ERASED)


def _handed_back(attempts: Sequence[Attempt]) -> pa.Table:
    spans = [
        {"execution": a.execution, "low": a.first + low, "high": a.first + high}
        for a in attempts
        for low, high in a.retry
    ]
    return pa.Table.from_pylist(spans, HANDED_BACK)


def _keys(stores: Stores) -> pa.Table:
    contracts: list[str] = []
    keys: list[Key] = []
    for name, items in stores.hot.items():
        found = list(items.all_keys())
        keys += found
        contracts += [name] * len(found)
    columns = [contracts, [pk for pk, _ in keys], [sk for _, sk in keys]]
    return pa.table([pa.array(column, pa.string()) for column in columns], schema=KEYS)


def _owed(evidence: Evidence) -> pa.Table:
    """How many rows of each landing object are a debt that repair has yet to pay, at most.

    An attempt says how many rows it owes in all; what its paid debts came to is not among them.
    """
    books = ledger.books(evidence.stores.ledger)
    rows: Counter[str] = Counter()
    for attempt in books.owed.values():
        spans = [
            span for debt in attempt.repair if debt in books.paid for span in books.paid[debt].rows
        ]
        done = sum(high - low for low, high in spans)
        key = attempt.landing_key
        rows[key] = max(rows[key], attempt.repair_rows - done)
    for mark in books.open_swept:
        rows[mark.landing_key] += sum(high - low for low, high in mark.rows)
    return pa.table(
        {
            "_object": pa.array(rows.keys(), pa.string()),
            "rows": pa.array(rows.values(), pa.int64()),
        }
    )


def _passed(stores: Stores) -> pa.Table:
    rows = [
        {"_stream": stream, "_shard": shard, "_sequence": str(at)}
        for (stream, shard), at in stores.held.passed.items()
    ]
    schema = pa.schema([(name, pa.string()) for name in ("_stream", "_shard", "_sequence")])
    return pa.Table.from_pylist(rows, schema)


def _queues(stores: Stores) -> pa.Table:
    rows = [{"_stream": queue, "messages": n} for queue, n in stores.held.waiting.items()]
    return pa.Table.from_pylist(
        rows, pa.schema([("_stream", pa.string()), ("messages", pa.int64())])
    )


def _pointers(stores: Stores) -> pa.Table:
    rows = [
        {
            "_stream": p.stream,
            "_shard": p.shard,
            "low": str(p.first).zfill(DIGITS),
            "high": str(p.last).zfill(DIGITS),
            "_where": p.where,
        }
        for p in stores.parked.pointers
    ]
    names = ("_stream", "_shard", "low", "high", "_where")
    return pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in names]))
