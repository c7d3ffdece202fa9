"""What is said of how far the stream is, looked at again and again: never further than it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from infra.simulation.account import Account
from infra.simulation.known import Violation, micros, position_of
from infra.simulation.sources import Position
from sinks import ledger, parquet
from sinks.lake import watermark
from sinks.lake.watermark import Lanes, Shard
from sinks.ledger import Attempt

EVERY_SECONDS = 40.0
LOOKS = 6
MARGIN_MICROS = 200 * 1_000_000  # ingest's time, a window and a poll


@dataclass
class Watch:
    """Looks at the ledger of a run, without the world's weather."""

    account: Account
    looks: int = 0
    told: int = 0
    violations: list[Violation] = field(default_factory=list)
    _raw: dict[str, list[tuple[Position, int]]] = field(default_factory=dict)

    def look(self) -> None:
        """Hold what is said now against what is settled now."""
        self.looks += 1
        attempts = list(self._attempts())
        archived = {key: self._records(key) for key in self._keys()}
        parked = self.account.known.parked_positions
        stream, lanes = self.account.stream, self.account.scenario.lanes
        shards = [
            Shard(name, parents=tuple(shard.parents), closed=shard.closed)
            for name, shard in stream.stream.shards.items()
        ]
        waits = watermark.waiting(archived, attempts, parked)
        told = watermark.of_shards(
            stream.name,
            shards,
            watermark.settled(attempts),
            waits.oldest,
            Lanes(lanes, MARGIN_MICROS),
        )
        done = {archived[a.raw_key][i][0] for a in attempts for i in a.done} | parked
        for shard, one in zip(shards, told, strict=True):
            until = float("inf") if one.ended else one.until
            if until is None:
                continue
            self.told += 1
            for record in stream.stream.shards[shard.name].records:
                place = (stream.name, shard.name, record.identifier)
                if record.arrival * 1e6 <= until and place not in done:
                    self.violations.append(Violation("settled too early", f"{place}: {one}"))

    def _attempts(self) -> Iterator[Attempt]:
        tables = self.account.dynamodb.tables
        for item in tables[self.account.topology.ledger_table.name].values():
            if "raw_key" in item:
                yield ledger.attempt(item)

    def _keys(self) -> Iterator[str]:
        held = {**self.account.expired, **self.account.s3.buckets[self.account.topology.bucket]}
        return (key for key in held if key.startswith("raw/"))

    def _records(self, key: str) -> list[tuple[Position, int]]:
        """Positions and arrivals in a raw object, which never changes."""
        if key not in self._raw:
            held = self.account.s3.buckets[self.account.topology.bucket].get(key)
            data = held.data if held else self.account.expired[key]
            rows = parquet.decode(data).to_pylist()
            self._raw[key] = [(position_of(row), micros(row["_arrival"])) for row in rows]
        return self._raw[key]
