"""Lakes for tests: a small contract, drawn worlds of attempts at it, and what the rule says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import duckdb
import pyarrow as pa
from hypothesis import strategies as st

from infra.doubles.s3 import S3
from infra.doubles.world import Calm
from infra.doubles.world import World as Surroundings
from sinks import distinct, landing, parquet
from sinks.bucket import Bucket
from sinks.lake import manifest, reader
from sinks.lake.compact import compact
from sinks.lake.manifest import Manifest
from sinks.lake.plan import Object, Plan
from sinks.lake.workspace import workspace
from transform.contract import Contract
from transform.contract_file import parse_contract
from transform.records import DROPPED_SCHEMA, QUARANTINE_SCHEMA
from transform.tables import MICROS

NOON = 1_795_521_600 * MICROS  # 2026-11-24T12:00:00Z
HOUR = 3_600 * MICROS
CONTRACT = parse_contract(
    b"""
name = "t"
version = 1
[identity]
device = "device"
event_time = "at"
record_id = ["device", "at"]
[[field]]
name = "device"
type = "string"
[[field]]
name = "at"
type = "timestamp"
format = "iso8601"
""",
    "t.toml",
)
KINDS = (landing.LANDING, landing.QUARANTINE, landing.DROPPED)


@dataclass(frozen=True)
class Verdict:
    """What a generation makes of an element."""

    kind: str
    device: str
    at: int
    digest: bytes


@dataclass(frozen=True)
class Attempt:
    """Positions that an execution was at, under a generation, and how many objects it wrote."""

    positions: tuple[int, ...]
    generation: tuple[int, int]
    objects: int


@dataclass(frozen=True)
class World:
    """Everything that happened; `rounds` are attempts that a compaction takes in together."""

    elements: dict[int, int]
    arrivals: dict[int, int]
    verdicts: dict[tuple[int, int, tuple[int, int]], Verdict]
    rounds: tuple[tuple[Attempt, ...], ...]


verdicts = st.builds(
    Verdict,
    st.sampled_from((*KINDS, landing.LANDING, landing.LANDING)),
    st.sampled_from(("a", "b")),
    st.integers(-1, 1).map(lambda hour: NOON + hour * HOUR),
    st.sampled_from((b"x" * 16, b"y" * 16)),
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    positions = range(draw(st.integers(1, 4)))
    generations = draw(
        st.lists(st.tuples(st.integers(0, 1), st.integers(1, 2)), min_size=1, max_size=3)
    )
    elements = {p: draw(st.integers(1, 2)) for p in positions}
    attempt = st.builds(
        Attempt,
        st.lists(st.sampled_from(positions), min_size=1, unique=True).map(tuple),
        st.sampled_from(generations),
        st.sampled_from((3, 3, 3, 2, 1)),
    )
    rounds = draw(st.lists(st.lists(attempt, max_size=4).map(tuple), min_size=1, max_size=4))
    return World(
        elements,
        {p: NOON + draw(st.integers(0, 2)) * HOUR // 2 for p in positions},
        {
            (p, sub, generation): draw(verdicts)
            for p in positions
            for sub in range(elements[p])
            for generation in set(generations)
        },
        tuple(rounds),
    )


def columns(world: World, attempt: Attempt, kind: str, raw: str) -> list[dict[str, Any]]:
    """The rows of one kind that an attempt makes."""
    epoch, version = attempt.generation
    rows = []
    for index, position in enumerate(attempt.positions):
        for sub in range(world.elements[position]):
            verdict = world.verdicts[position, sub, attempt.generation]
            if verdict.kind == kind:
                moment = datetime.fromtimestamp(verdict.at / MICROS, UTC)
                rows.append(
                    {
                        "device": verdict.device,
                        "at": verdict.at,
                        "_record_id": f"{verdict.device}/{moment:%H}",
                        "_digest": verdict.digest,
                        "_contract": "t",
                        "_stream": "s",
                        "_shard": "0",
                        "_sequence": str(position),
                        "_arrival": world.arrivals[position],
                        "_raw": raw,
                        "_index": index,
                        "_sub": sub,
                        "_child": 0,
                        "_elements": world.elements[position],
                        "_epoch": epoch,
                        "_version": version,
                        "_generation": f"{epoch}-{version}",
                        "_rule": "r",
                        "_step": "check",
                        "_reason": "not_allowed",
                        "_detail": "",
                        "_body": b"",
                    }
                )
    return rows


SCHEMAS = {
    landing.LANDING: CONTRACT.landing_schema(),
    landing.QUARANTINE: QUARANTINE_SCHEMA,
    landing.DROPPED: DROPPED_SCHEMA,
}


def write(bucket: Bucket, world: World, attempt: Attempt, raw: str) -> list[Object]:
    """The objects of an attempt, landing last; one that died wrote fewer."""
    found = []
    for kind in (landing.QUARANTINE, landing.DROPPED, landing.LANDING)[: attempt.objects]:
        rows = columns(world, attempt, kind, raw)
        if rows:
            data = parquet.encode(pa.Table.from_pylist(rows, schema=SCHEMAS[kind]))
            earliest = min(row["_arrival"] for row in rows)
            found.append(Object(bucket.put_once(f"{kind}/t", earliest, data), len(rows)))
    return found


def made(surroundings: Surroundings | None = None, beside: Bucket | None = None) -> Bucket:
    """A bucket on a double, empty or with the objects of another one."""
    buckets = beside.client.buckets if beside else {"b": {}}
    return Bucket(S3(surroundings or Calm(), buckets), "b")


@cache
def database() -> duckdb.DuckDBPyConnection:
    """One for all: it takes longer to open than to answer."""
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    return db


def rule(bucket: Bucket) -> list[tuple[Any, ...]]:
    """What the law says of all objects there are."""
    db = database()
    for kind in KINDS:
        tables = [landing.read(bucket, key) for key in bucket.keys(f"{kind}/t/")]
        every = [SCHEMAS[kind].empty_table(), *tables]
        db.register(kind, pa.concat_tables(every, promote_options="permissive"))
    return rows(db, distinct.Tables(*KINDS).records())


def rows(db: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    shown = (
        'device, epoch_us("at"), _record_id, _digest, _sequence, _sub, _generation, _raw, _index'
    )
    return sorted(db.sql(sql).select(shown).fetchall())


def told(bucket: Bucket) -> list[tuple[Any, ...]]:
    """What the named reader says."""
    with workspace(bucket) as work:
        found = reader.snapshot(work, CONTRACT)
        work.db.register("tail", found.tail)
        lake = work.read((file.key for file in found.files), "* EXCLUDE (filename)")
        return rows(work.db, " UNION ALL BY NAME ".join(filter(None, ("FROM tail", lake))))


def lake_rows(bucket: Bucket) -> list[tuple[Any, ...]]:
    """What stands in the lake's own files."""
    files = manifest.read(bucket, "t").files
    tables = [landing.read(bucket, file.key) for file in files]
    database().register("lake", pa.concat_tables([SCHEMAS[landing.LANDING].empty_table(), *tables]))
    return rows(database(), "FROM lake")


def taken_in(bucket: Bucket, contract: Contract, *keys: str) -> Manifest:
    """A lake that has taken in all that is fresh, or some of it."""
    fresh = reader.fresh(bucket, manifest.read(bucket, contract.name))
    plan = Plan(tuple(one for one in fresh if not keys or one.key in keys), 0)
    return compact(bucket, contract, plan).lake


def without_landing(bucket: Bucket, contract: Contract) -> None:
    """Landing objects that a lake has taken in are gone, as long after."""
    fresh = {one.key for one in reader.fresh(bucket, manifest.read(bucket, contract.name))}
    bucket.delete(set(bucket.keys(f"{landing.LANDING}/{contract.name}/")) - fresh)
