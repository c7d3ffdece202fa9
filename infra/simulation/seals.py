"""Hours are sealed while all goes on, and sealed is exact: the oracle knows what had arrived.

Every record that had arrived by a seal's moment is settled or parked, what it came to is in the
sealed hour, and whatever changes the hour takes its seal away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from infra.doubles.sqs import Sqs
from infra.doubles.world import Calm
from infra.parked import Parked, parked
from infra.sealing import Sealer
from infra.simulation.account import URL, Account
from infra.simulation.known import Standing, Stores, Violation, micros
from infra.simulation.lake import HOUR_MICROS, MICROS, ONE_THREAD, SOURCES, Held
from infra.simulation.operators import Operators
from infra.simulation.oracle import Oracle
from infra.simulation.watermarks import MARGIN_MICROS
from ingest.settings import Wiring
from ingest.watermarks import Sources
from sinks.lake.manifest import Manifest
from sinks.lake.watermark import Lanes

Identity = tuple[str, bytes]


@dataclass
class Seals:
    """Whoever seals, and what was in the hours that were. `held` is by hour and seal."""

    account: Account
    operators: Operators
    violations: list[Violation] = field(default_factory=list)
    did: list[str] = field(default_factory=list)
    held: dict[tuple[int, int, int], frozenset[Identity]] = field(default_factory=dict)

    def seal(self, pause: float = 0.0) -> None:
        """Seal what is final, after a while. Hours here are open no longer than they need be."""
        self.account.scheduler.sleep(pause)
        done = self.operators.once("seal", lambda wiring: self._sealer(wiring).seal())
        self.look()
        if done is not None and done[0] != done[1]:
            self.did.append("sealed")
            self._judge(*done)

    def look(self) -> None:
        """Sealed hours are as they were when they were sealed."""
        lake = Held.of(self.account.objects())
        for part in lake.manifest["partitions"]:
            if part["seal"]:
                name = (part["hour"], part["seal"]["as_of"], part["seal"]["sealed_at"])
                rows = frozenset(Standing.of(row).identity for row in lake.hours[part["hour"]])
                if self.held.setdefault(name, rows) != rows:
                    self.violations.append(Violation("a sealed hour changed", str(name)))

    def _judge(self, before: Manifest, after: Manifest) -> None:
        """What was sealed just now is all there is of its hours."""
        known = {part.hour: part.seal for part in before.partitions}
        for part in after.partitions:
            if part.seal is None or part.seal == known.get(part.hour):
                continue
            if part.seal.exact:
                self.did.append("sealed exactly")
                late = list(self._open_until(part.seal.as_of))
                self.violations += [Violation("sealed before it was settled", str(p)) for p in late]
            wanted = {
                one.identity: None
                for one, hour in self._standing(part.seal.sealed_at)
                if hour == part.hour
            }
            name = (part.hour, part.seal.as_of, part.seal.sealed_at)
            if self.held.get(name, frozenset(wanted)) != wanted.keys():
                self.violations.append(Violation("a sealed hour is not whole", str(name)))

    def _open_until(self, as_of: int) -> Iterator[object]:
        """Records of the stream that had arrived, and are neither settled nor parked."""
        known, stream = self.account.known, self.account.stream
        for shard in stream.stream.shards.values():
            for record in shard.records:
                place = (stream.name, shard.name, record.identifier)
                done = place in known.settled_positions or place in known.parked_positions
                if not done and record.arrival * MICROS <= as_of:
                    yield place

    def _standing(self, until: int) -> list[tuple[Standing, int]]:
        """What analysts counted at a moment, by hand, and the event hours of it."""
        there = self.account.s3.buckets[self.account.topology.bucket]
        objects = {
            key: stored.data
            for key, stored in there.items()
            if not key.startswith(SOURCES) or stored.written_at * MICROS <= until
        }
        oracle = Oracle(self.account.known, Stores(objects, self.account.gone, {}, {}, ()))
        hours = {
            Standing.of(row).identity: micros(row["event_time"]) // HOUR_MICROS
            for _, row in oracle.landing
        }
        return [(one, hours[one.identity]) for one in oracle.standing()]

    def _sealer(self, wiring: Wiring) -> Sealer:
        account = self.account
        main = account.main_queue.name
        sources = Sources(
            pipeline=wiring.settings.pipeline,
            stream=account.stream.name,
            lanes=Lanes(account.scenario.lanes, MARGIN_MICROS),
            queues={main: URL + main},
            kinesis=Shards(account),  # type: ignore[arg-type]
            sqs=account.clients["sqs"],
            bucket=account.patient(),
            ledger=wiring.ledger_table,
            clock=lambda: account.scheduler.now,
        )
        return Sealer(
            bucket=account.patient(),
            contract=wiring.contract,
            rules=wiring.transform(wiring.epoch()),
            sources=sources,
            parked=self._parked,
            lateness=-HOUR_MICROS,
            limits=ONE_THREAD,
        )

    def _parked(self) -> Parked:
        account = self.account
        sqs = Sqs(Calm(account.weather.clock), account.clients["sqs"].queues)
        prefix = account.topology.stream_mapping.on_failure_prefix
        return parked(account.calm(), prefix, sqs, account.letters)


@dataclass(frozen=True)
class Shards:
    """Kinesis, asked for a stream's shards."""

    account: Account

    def list_shards(self, **_: Any) -> dict[str, Any]:
        return {
            "Shards": [
                {
                    "ShardId": name,
                    "HashKeyRange": {"StartingHashKey": str(shard.low)},
                    "SequenceNumberRange": {"EndingSequenceNumber": "0"} if shard.closed else {},
                    **dict(zip(("ParentShardId", "AdjacentParentShardId"), shard.parents)),  # noqa: B905
                }
                for name, shard in self.account.stream.stream.shards.items()
            ]
        }
