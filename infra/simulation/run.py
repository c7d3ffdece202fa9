"""A scenario to its end, and the violations found."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any

from infra.doubles.dynamodb import DynamoDB
from infra.doubles.events import EventBridge
from infra.doubles.mappings import Mappings, Switch
from infra.doubles.s3 import S3
from infra.doubles.sqs import Sqs
from infra.doubles.stepfunctions import StateMachines
from infra.esm.queue import QueueRules
from infra.esm.shard import ShardMachine
from infra.esm.simulate import EPOCH
from infra.esm.simulated_stream import SimulatedStream
from infra.esm.stream import StreamRules
from infra.simulation.contracts import NAME
from infra.simulation.guards import overtaken, set_aside_by_the_world
from infra.simulation.lambdas import Lambdas, arn_of
from infra.simulation.operators import Operators
from infra.simulation.oracle import Known, Oracle, Stores, Violation
from infra.simulation.proof import compared, proven
from infra.simulation.regrouping import Regrouping
from infra.simulation.scenario import Event, Made, Scenario
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
from ingest.breaker import RejectLimits
from ingest.limits import FIFO
from ingest.parking import Parking
from ingest.sweep import KEPT_DAYS, QUIET_SECONDS
from sinks.bucket import Bucket

URL = "https://sqs.us-east-1.amazonaws.com/123456789012/"
ALLOWED = ("NoSuchKey", "NothingDone: Transform died")
"""What a function may raise: an object has gone; Transform died, and the mapping is to bisect."""
QUIET = QUIET_SECONDS + 1_000.0
"""Until a sweep looks at everything, by a clock that may be late."""
KEPT = (KEPT_DAYS + 1) * 86_400.0
SWEEPS_MAX = 5
BREAKER = RejectLimits(records_min=4, keys_min=2)
"""The breaker's limits where it is to trip: Deliveries here are of few records."""
VERIFIED_EVERY = 20  # seeds: to verify takes longer than all else
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

    did: tuple[str, ...] = ()

    def faults(self) -> Counter[str]:
        """Faults by kind; events count as they came."""
        counted = Counter(name.partition(" ")[2] for name in self.happened)
        counted.update(event.kind for event in self.scenario.events)
        counted.update(self.did)
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
        self.held = self._queues()
        sqs = Sqs(self.weather, {URL + name: queue for name, queue in self.held.items()})
        self.switches = Mappings(self.weather)
        self.clients: dict[str, Any] = {
            "s3": self.s3,
            "dynamodb": self.dynamodb,
            "sqs": sqs,
            "lambda": self.switches,
        }
        limits = BREAKER if scenario.profile == "breaker" else RejectLimits()
        self.lambdas = Lambdas(self.topology, self.weather, self.scheduler, self.clients, limits)
        machines = {arn_of(self.topology): definition()}
        self.events = EventBridge(self.weather, {self.topology.bus.name: []})
        self.machines = StateMachines(
            self.weather, self.lambdas, self.dynamodb, self.events, machines
        )
        self.clients["stepfunctions"] = self.machines
        self.stream = self._stream()
        self.queue = self._queue(self.main_queue, self.topology.queue_mapping, self.known)
        self.repair = self._queue(self.topology.repair_queue, self.topology.repair_mapping, Deaf())
        self.expired: dict[str, bytes] = {}
        self.switches.switches = {
            source.function: Switch(source.function, source.arn, source.switch)
            for source in (self.stream, self.queue)
        }
        self.operators = Operators(
            self.lambdas, self.known, EPOCH, self._parking, self.switches.switches, scenario.mend
        )
        self.oracle: Oracle | None = None

    def run(self) -> Report:
        for made in self.scenario.records:
            self.scheduler.at(EPOCH + made.at, lambda made=made: self._put(made))  # type: ignore[misc]
        for event in self.scenario.events:
            self.scheduler.at(EPOCH + event.at, lambda event=event: self._event(event))  # type: ignore[misc]
        until = EPOCH + self.scenario.calm_at + DRAIN_SECONDS
        violations: list[Violation] = []
        if self.scenario.profile == "breaker":
            self.scheduler.spawn(self.operators.watch, "operator")
        with silence():
            try:
                self.scheduler.run(until, self._idle)
                self._clear_up()
            except StuckError as stuck:
                violations.append(Violation("time stands still", str(stuck)))
        self.oracle = Oracle(self.known, self._stores())
        violations += self.oracle.judge()
        violations += self._delays() + self._defects() + self._debts() + self._told(self.oracle)
        violations += overtaken(self.known)
        executions, limits = self.machines.executions, self.lambdas.breaker
        violations += set_aside_by_the_world(self.known, executions, self.oracle.tables, limits)
        violations += self._left()
        if not self.scenario.seed % VERIFIED_EVERY and not self.expired:
            violations += self._proof(self.oracle)
        return Report(
            self.scenario,
            tuple(violations),
            tuple(self.weather.happened),
            self.weather.trace.hexdigest(),
            self.scheduler.now - EPOCH,
            tuple(self._did()),
        )

    def _did(self) -> Iterator[str]:
        """What the guards and the operators came to do."""
        yield from self.operators.did
        for execution in self.machines.executions:
            if execution.status == "SUCCEEDED":
                done = execution.output
                yield from (name for name in ("unread", "canary") if done.get(name))
                yield from ["tripped"] * ("breaker" in done["transform"])
                yield from ["owed"] * bool(done.get("hot", {}).get("repair"))
        yield from ["parked"] * len(self.known.parked_positions)
        yield from ["fifo"] * bool(self.known.groups)

    def _proof(self, oracle: Oracle) -> list[Violation]:
        """What `verify` says of the account, held against the oracle."""
        self.operators.did.append("verified")
        passed = {(self.stream.name, name): at for name, at in self.stream.checkpoints.items()}
        letters = {self.main_queue.name: URL + self.topology.dead_letters.name}
        report = proven(self.topology, self.clients, letters, passed, self.scheduler.now)
        return list(compared(report, oracle))

    def _left(self) -> list[Violation]:
        """Where budgets are small, a replay at the end gives all that is parked a fate."""
        parked = self.known.parked_positions if self.scenario.budget and self.oracle else set()
        chosen = self.oracle.chosen if self.oracle else {}
        return [Violation("parked for ever", str(position)) for position in parked - chosen.keys()]

    def _clear_up(self) -> None:
        """Once all is calm: what is parked is replayed, and sweeps come until nothing is due.

        The last of them when no source can bring a record again.
        """
        parked = self.known.parked_positions
        if self.scenario.budget and parked:
            self.lambdas.deployed.version = 2
            self._operate(lambda: self.operators.replay("last", QUIET))  # letters are shown again
        for pause in (QUIET, KEPT) if parked else (QUIET,):
            for _ in range(SWEEPS_MAX):
                self._operate(partial(self.operators.sweep, pause))
                if not self.operators.swept:
                    break

    def _operate(self, work: Callable[[], None]) -> None:
        self.operators.begin(work)
        self.scheduler.run(self.scheduler.now + KEPT + DRAIN_SECONDS, self._idle)

    def _idle(self) -> bool:
        return (
            not self.operators.busy
            and self.scheduler.now > EPOCH + self.scenario.calm_at + 300.0
            and len(self.known.members) == len(self.scenario.records)
            and self.stream.drained
            and self.queue.drained
            and self.repair.drained
        )

    def _put(self, made: Made) -> None:
        if made.source == "kinesis":
            # The oracle must know before the mapping does.
            record = self.stream.put(made.key, made.body)
        else:
            record = self.queue.put(made.body, made.key)
            if self.scenario.fifo:
                self.known.groups.setdefault(made.key, []).append(record)
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
            case "reprocess" | "replay" | "sweep":
                self._command(event)
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

    def _command(self, event: Event) -> None:
        """An operator's command, by other rules than before where it has some."""
        self.lambdas.deployed.version = int(event.value or self.lambdas.deployed.version)
        work: dict[str, Callable[[], None]] = {
            "reprocess": self.operators.reprocess,
            "replay": lambda: self.operators.replay(f"at {event.at:.0f}"),
            "sweep": self.operators.sweep,
        }
        self.operators.begin(work[event.kind])

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
            maximum_retry_attempts=scenario.budget or mapping.maximum_retry_attempts,
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

    @cached_property
    def main_queue(self) -> Queue:
        """The topology's queue, as this scenario has it."""
        queue, budget = self.topology.queue, self.scenario.budget
        return replace(
            queue,
            name=queue.name + (FIFO if self.scenario.fifo else ""),
            max_receive_count=budget or queue.max_receive_count,
        )

    def _queues(self) -> dict[str, NoticedQueue]:
        letters = self.topology.dead_letters
        queues = (self.main_queue, letters, self.topology.repair_queue)
        held = {queue.name: empty(queue, fifo=queue.name.endswith(FIFO)) for queue in queues}
        held[self.main_queue.name].dead_letters = held[letters.name].messages
        return held

    def _parking(self) -> Parking:
        return Parking(
            bucket=Bucket(self.clients["s3"], self.topology.bucket),
            stream=self.stream.name,
            prefix=self.topology.stream_mapping.on_failure_prefix,
            sqs=self.clients["sqs"],
            letters={self.main_queue.name: URL + self.topology.dead_letters.name},
        )

    def _queue(self, queue: Queue, mapping: QueueMapping, ears: Ears) -> QueueSource:
        (function,) = [f for f in self.topology.functions if f.name == mapping.function]
        rules = QueueRules(
            batch_size=min(self.scenario.batch, mapping.batch_size),
            window_seconds=0 if queue.name.endswith(FIFO) else mapping.window_seconds,
            maximum_concurrency=mapping.maximum_concurrency,
            visibility_seconds=queue.visibility_seconds,
            timeout_seconds=function.timeout_seconds,
            fifo=queue.name.endswith(FIFO),
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

    def parked(self, position: Position, arrival_micros: int) -> None: ...


def empty(queue: Queue, *, fifo: bool) -> NoticedQueue:
    """A queue of the topology."""
    return NoticedQueue(
        fifo=fifo,
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
