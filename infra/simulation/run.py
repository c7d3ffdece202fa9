"""A scenario to its end, and the violations found."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from infra.doubles.dynamodb import DynamoDB
from infra.doubles.events import EventBridge
from infra.doubles.s3 import S3
from infra.doubles.sqs import Sqs
from infra.doubles.stepfunctions import StateMachines
from infra.esm.queue import QueueRules
from infra.esm.shard import ShardMachine
from infra.esm.simulate import EPOCH
from infra.esm.simulated_stream import SimulatedStream
from infra.esm.stream import StreamRules
from infra.simulation.contracts import NAME
from infra.simulation.lambdas import Lambdas, arn_of
from infra.simulation.oracle import Known, Oracle, Stores, Violation
from infra.simulation.regrouping import Regrouping
from infra.simulation.scenario import HOUR_SECONDS, Event, Made, Scenario
from infra.simulation.scheduler import Scheduler, StuckError
from infra.simulation.sources import (
    Ears,
    Machine,
    NoticedQueue,
    Position,
    QueueSource,
    StreamSource,
)
from infra.simulation.told import Told
from infra.simulation.weather import Weather
from infra.topology import Queue, QueueMapping, Topology, pipeline
from ingest import stages, telemetry
from ingest.reprocess import reprocess
from ingest.settings import EPOCH_SECONDS

MICROS = 1_000_000
URL = "https://sqs.us-east-1.amazonaws.com/123456789012/"
ALLOWED = ("NoSuchKey", "NothingDone: Transform died")
"""What a function may raise: an object has gone; Transform died, and the mapping is to bisect."""
COMMANDS_MAX = 40
PAUSE_SECONDS = 60.0
GRACE_SECONDS = 180.0 + EPOCH_SECONDS
"""As the command waits: ingest's timeout, and how long a process may not know of an epoch."""
DRAIN_SECONDS = 24 * 3_600.0
"""After the last fault: a message may be invisible for 18 minutes some twenty times."""
POISON_SECONDS = 3 * 180.0 + 5.0
"""Three of ingest's timeouts, a window and a poll: so long may bad data delay what is behind it."""


@dataclass(frozen=True)
class Report:
    """What one run came to. Equal digests are equal runs."""

    scenario: Scenario
    violations: tuple[Violation, ...]
    happened: tuple[str, ...]
    digest: str
    seconds: float

    def faults(self) -> Counter[str]:
        """Faults by kind; events count as they came."""
        counted = Counter(name.partition(" ")[2] for name in self.happened)
        counted.update(event.kind for event in self.scenario.events)
        return counted


class Simulation:
    """One account with one pipeline, and what happens to it."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.topology = topology()
        self.scheduler = Scheduler(EPOCH)
        self.weather = Weather(scenario, self.scheduler)
        self.known = Known(now=lambda: self.scheduler.now)
        self.s3 = S3(self.weather, {self.topology.bucket: {}})
        self.dynamodb = DynamoDB(self.weather, {t.name: {} for t in self.topology.tables})
        self.held = {queue.name: held(queue) for queue in (self.topology.queue, *self._repair())}
        sqs = Sqs(self.weather, {URL + name: queue for name, queue in self.held.items()})
        clients: dict[str, Any] = {"s3": self.s3, "dynamodb": self.dynamodb, "sqs": sqs}
        self.lambdas = Lambdas(self.topology, self.weather, self.scheduler, clients)
        machines = {arn_of(self.topology): definition()}
        self.events = EventBridge(self.weather, {self.topology.bus.name: []})
        self.machines = StateMachines(
            self.weather, self.lambdas, self.dynamodb, self.events, machines
        )
        clients["stepfunctions"] = self.machines
        self.stream = self._stream()
        self.queue = self._queue(self.topology.queue, self.topology.queue_mapping, self.known)
        self.repair = self._queue(self.topology.repair_queue, self.topology.repair_mapping, Deaf())
        self.expired: dict[str, bytes] = {}
        self.operating = False
        self.told: list[str] = []
        self.oracle: Oracle | None = None

    def run(self) -> Report:
        for made in self.scenario.records:
            self.scheduler.at(EPOCH + made.at, lambda made=made: self._put(made))  # type: ignore[misc]
        for event in self.scenario.events:
            self.scheduler.at(EPOCH + event.at, lambda event=event: self._event(event))  # type: ignore[misc]
        until = EPOCH + self.scenario.calm_at + DRAIN_SECONDS
        violations: list[Violation] = []
        with silence():
            try:
                self.scheduler.run(until, self._idle)
            except StuckError as stuck:
                violations.append(Violation("time stands still", str(stuck)))
        self.oracle = Oracle(self.known, self._stores())
        violations += self.oracle.judge()
        violations += self._delays() + self._defects() + self._debts() + self._told(self.oracle)
        return Report(
            self.scenario,
            tuple(violations),
            tuple(self.weather.happened),
            self.weather.trace.hexdigest(),
            self.scheduler.now - EPOCH,
        )

    def _idle(self) -> bool:
        everything = len(self.known.members) == len(self.scenario.records)
        later = self.scheduler.now > EPOCH + self.scenario.calm_at + 300.0
        drained = self.stream.drained and self.queue.drained and self.repair.drained
        return everything and later and drained and not self.operating

    def _put(self, made: Made) -> None:
        if made.source == "kinesis":
            # The oracle must know before the mapping does.
            record = self.stream.put(made.key, made.body)
        else:
            record = self.queue.put(made.body)
        self.known.made(record, made.body, made.members)

    def _event(self, event: Event) -> None:  # noqa: C901  one case for each kind
        self.weather.note(f"event {event}")
        now = self.scheduler.now
        match event.kind:
            case "contract":
                self.lambdas.deployed.version = int(event.value)
            case "hot contract":
                self.lambdas.hot_deployed.version = self.lambdas.deployed.version
            case "code":
                self.lambdas.deployed.code = int(event.value)
            case "reprocess":
                self.lambdas.deployed.version = int(event.value)
                self.scheduler.spawn(self._reprocess, "operator")
            case "split" | "merge":
                self._reshard(event.kind)
            case "restart":
                self.stream.restart()
                self.queue.restart()
                self.repair.restart()
            case "outage":
                self.weather.outages[event.value] = now + event.seconds
            case "clock":
                self.lambdas.skew += float(event.value)
            case "expire":
                self._expire()
            case "broken":
                self.lambdas.broken_until = now + event.seconds
            case "hot key":
                self.weather.hot_keys[event.value] = now + event.seconds

    def _reprocess(self) -> None:
        """An operator, who runs the command until it says that it is complete."""
        self.operating = True
        ends = round((EPOCH + HOUR_SECONDS) * MICROS)
        for _ in range(COMMANDS_MAX):
            wiring = self.lambdas.operators()
            task = self.scheduler.spawn(
                lambda wiring=wiring: reprocess(wiring, 0, ends, GRACE_SECONDS),  # type: ignore[misc]
                "reprocess",
                mortal=True,
            )
            task.wait()
            if task.result is not None and task.result.complete:
                break
            self.told.append(f"reprocess: {task.error or task.result}")
            self.scheduler.sleep(PAUSE_SECONDS)
        else:
            self.known.violations.append(Violation("reprocess does not end", str(self.told[-1])))
        self.operating = False

    def _reshard(self, kind: str) -> None:
        stream = self.stream.stream
        whole = [s for s in stream.shards.values() if not s.closed]
        whole.sort(key=lambda shard: shard.low)
        if kind == "split":
            stream.split(whole[0].name)
        elif len(whole) > 1:
            stream.merge(whole[0].name, whole[1].name)
        self.stream.turn()

    def _expire(self) -> None:
        """Raw objects go, whoever still wants to read them."""
        objects = self.s3.buckets[self.topology.bucket]
        for key in [key for key in objects if key.startswith("raw/")]:
            self.expired[key] = objects.pop(key).data

    def _stores(self) -> Stores:
        objects = self.s3.buckets[self.topology.bucket]
        tables = self.dynamodb.tables
        done = [e for e in self.machines.executions if e.status == "SUCCEEDED"]
        return Stores(
            objects={key: stored.data for key, stored in objects.items()},
            gone=self.expired,
            hot=tables[self.topology.hot_table.name],
            ledger=tables[self.topology.ledger_table.name],
            succeeded=[execution.arn for execution in done],
            executions=self.machines.executions,
        )

    def _delays(self) -> list[Violation]:
        """Bad data alone holds nothing up (invariant 4)."""
        if self.weather.happened or self.scenario.profile not in {"calm", "poison"}:
            return []
        return [
            Violation("delayed by poison", f"{position}: {at - arrival / 1e6:.0f} s")
            for position, at in self.known.settled_positions.items()
            if (arrival := self.known.arrivals[position]) and at - arrival / 1e6 > POISON_SECONDS
        ]

    def _debts(self) -> list[Violation]:
        """Once the world is calm, every debt is paid."""
        return [
            Violation("a debt is not paid", message.body) for message in self.repair.queue.messages
        ]

    def _told(self, oracle: Oracle) -> list[Violation]:
        """Whatever becomes of the feed, what it says is so (and outcomes are the oracle's)."""
        bad = any(name.startswith("events.") for name in self.weather.happened)
        bad |= "events" in self.weather.outages
        entries = self.events.buses[self.topology.bus.name]
        told = Told(entries, oracle.quarantine, self.machines.executions, bad)
        return list(told.judge())

    def _defects(self) -> list[Violation]:
        """What a function raised: nothing ever should, but where an object has gone."""
        return [
            Violation("a function raised", error)
            for error in self.lambdas.errors
            if not any(allowed in error for allowed in ALLOWED)
        ]

    def _stream(self) -> StreamSource:
        scenario, mapping = self.scenario, self.topology.stream_mapping
        rules = StreamRules(
            batch_size=scenario.batch,
            window_seconds=mapping.window_seconds,
            bisect=scenario.bisect,
            maximum_retry_attempts=mapping.maximum_retry_attempts,
            maximum_record_age_seconds=mapping.maximum_record_age_seconds,
            parallelization_factor=scenario.lanes,
        )
        retention = self.topology.stream.retention_hours * 3_600.0
        made = 0

        def machine() -> Machine:
            nonlocal made
            made += 1
            if not scenario.regroup:
                return ShardMachine(rules, scenario.undocumented, retention)
            number, cuts = made, iter(range(10**9))
            return Regrouping(
                scenario.batch,
                scenario.undocumented,
                lambda: self.weather.chance("cut", number, next(cuts)),
            )

        return StreamSource(
            self.topology.stream.name,
            mapping.function,
            SimulatedStream(scenario.shards, retention),
            rules,
            self.lambdas,
            self.weather,
            (self.s3, self.topology.bucket),
            self.known,
            machine,
        )

    def _repair(self) -> list[Queue]:
        return [self.topology.repair_queue]

    def _queue(self, queue: Queue, mapping: QueueMapping, ears: Ears) -> QueueSource:
        (function,) = [f for f in self.topology.functions if f.name == mapping.function]
        rules = QueueRules(
            batch_size=min(self.scenario.batch, mapping.batch_size),
            window_seconds=mapping.window_seconds,
            maximum_concurrency=mapping.maximum_concurrency,
            visibility_seconds=queue.visibility_seconds,
            timeout_seconds=function.timeout_seconds,
        )
        return QueueSource(
            queue.name,
            mapping.function,
            self.held[queue.name],
            rules,
            self.lambdas,
            self.weather,
            ears,
            self.scenario.undocumented,
        )


class Deaf:
    """Who does not care what a mapping did: debts are judged by the hot table and the ledger."""

    def received(self, position: Position, body: bytes, arrival_micros: int) -> None: ...

    def settled(self, position: Position) -> None: ...

    def parked(self, position: Position) -> None: ...


def held(queue: Queue) -> NoticedQueue:
    """A queue of the topology, empty."""
    return NoticedQueue(
        visibility_seconds=queue.visibility_seconds,
        max_receive_count=queue.max_receive_count,
        retention_seconds=queue.retention_seconds,
    )


@cache
def topology() -> Topology:
    """The default pipeline, of the simulated contract."""
    return pipeline("simulated", NAME)


@cache
def definition() -> dict[str, Any]:
    """Its workflow, as the object of the ASL file."""
    arns = {f.name: f"arn:aws:lambda:us-east-1:1:function:{f.name}" for f in topology().functions}
    return json.loads(topology().definition(arns))  # type: ignore[no-any-return]


class _Unheard:
    """Metrics that nobody reads."""

    def add_metric(self, *_: object) -> None: ...

    def flush_metrics(self) -> None: ...


@contextmanager
def silence() -> Iterator[None]:
    """No log lines and no metrics: a run has hundreds of Deliveries."""
    loggers = [logging.getLogger(logger.name) for logger in (telemetry.logger, stages.logger)]
    levels = [logger.level for logger in loggers]
    metrics = telemetry.metrics
    telemetry.metrics = _Unheard()  # type: ignore[assignment]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        telemetry.metrics = metrics
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
