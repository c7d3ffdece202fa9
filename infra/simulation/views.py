"""Law 5 as readers apply it (`sinks.distinct`, in SQL), held against the oracle's own.

A query takes longer than a run: so the objects of many runs are read by one, told apart by their
stream's and their devices' names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, get_args

import duckdb
import pyarrow as pa

from infra.simulation import contracts
from infra.simulation.known import Row, Violation, position_of
from infra.simulation.messages import Fate, Place
from infra.simulation.oracle import Oracle
from infra.simulation.sources import Position
from sinks import distinct
from transform.records import DROPPED_SCHEMA, QUARANTINE_SCHEMA

TABLES = distinct.Tables("rows", "rejects", "drops")
SCHEMA = contracts.contract(contracts.NEWEST, contracts.VERBS).landing_schema()


@dataclass
class Views:
    """The objects of several runs, and what the oracle makes of each."""

    oracles: dict[int, Oracle] = field(default_factory=dict)

    def add(self, seed: int, oracle: Oracle) -> None:
        self.oracles[seed] = oracle

    def compare(self) -> Mapping[int, Sequence[Violation]]:
        """Where a reader counts other than the oracle, by seed."""
        found: dict[int, list[Violation]] = {seed: [] for seed in self.oracles}
        rows = self._table([(s, o.landing) for s, o in self.oracles.items()], SCHEMA)
        rejected = [(seed, oracle.quarantine) for seed, oracle in self.oracles.items()]
        rejects = self._table(rejected, QUARANTINE_SCHEMA)
        db = _database()
        db.register("rows", rows)
        db.register("rejects", rejects)
        dropped = [(seed, oracle.dropped) for seed, oracle in self.oracles.items()]
        db.register("drops", self._table(dropped, DROPPED_SCHEMA))
        views = {
            "delivered": _elements(db, TABLES.delivered()),
            "quarantined": _elements(db, TABLES.set_aside()),
            "dropped": _elements(db, TABLES.left_out()),
        }
        records = _identities(db)
        for seed, oracle in self.oracles.items():
            for fate in get_args(Fate):
                told, wanted = views[fate].get(seed, []), oracle.elements(fate)
                if told != sorted(wanted):
                    differ = set(told) ^ wanted or "counted twice"
                    found[seed].append(Violation("the distinct view differs", f"{fate} {differ}"))
            if records.get(seed, []) != sorted(oracle.identities()):
                found[seed].append(Violation("the distinct view differs", "identities"))
        return found

    def _table(self, of: Sequence[tuple[int, Sequence[tuple[str, Row]]]], schema: pa.Schema) -> Any:
        marked = [_marked(seed, row) for seed, rows in of for _, row in rows]
        return pa.Table.from_pylist(marked, schema=schema)


def _marked(seed: int, row: Row) -> Row:
    own = {"_stream": f"{seed}/{row['_stream']}"}
    if "_record_id" in row:
        own["_record_id"] = f"{seed}/{row['_record_id']}"
    return row | own


def _elements(db: Any, view: str) -> dict[int, list[tuple[Position, Place]]]:
    sql = f"SELECT {distinct.ELEMENT} FROM ({view})"  # noqa: S608  our own names
    found: dict[int, list[tuple[Position, Place]]] = {}
    for stream, shard, sequence, sub, child in db.execute(sql).fetchall():
        seed, _, name = stream.partition("/")
        row = {"_stream": name, "_shard": shard, "_sequence": sequence}
        found.setdefault(int(seed), []).append((position_of(row), (sub, child)))
    return {seed: sorted(elements) for seed, elements in found.items()}


def _identities(db: Any) -> dict[int, list[bytes]]:
    view = TABLES.records()
    found: dict[int, list[bytes]] = {}
    for record, digest in db.execute(f"SELECT _record_id, _digest FROM ({view})").fetchall():  # noqa: S608
        found.setdefault(int(record.partition("/")[0]), []).append(digest)
    return {seed: sorted(digests) for seed, digests in found.items()}


@cache
def _database() -> Any:
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    db.execute("SET threads = 1")
    return db
