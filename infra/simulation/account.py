"""The account of a run, simulated: a pipeline's clients, functions, workflow and sources."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from functools import cache, cached_property
from typing import Any

from infra.doubles.dynamodb import DynamoDB
from infra.doubles.events import EventBridge
from infra.doubles.mappings import Mappings, Switch
from infra.doubles.s3 import S3
from infra.doubles.sqs import Sqs
from infra.doubles.stepfunctions import StateMachines
from infra.doubles.world import Calm
from infra.esm.queue import QueueRules
from infra.esm.shard import ShardMachine
from infra.esm.simulate import EPOCH
from infra.esm.simulated_stream import SimulatedStream
from infra.esm.stream import StreamRules
from infra.simulation import contracts
from infra.simulation.contracts import NAME
from infra.simulation.known import Known, Stores
from infra.simulation.lambdas import Lambdas, arn_of
from infra.simulation.regrouping import Regrouping
from infra.simulation.scenario import Scenario
from infra.simulation.scheduler import Scheduler
from infra.simulation.sources import (
    Ears,
    Machine,
    NoticedQueue,
    Position,
    QueueSource,
    StreamSource,
)
from infra.simulation.weather import Patient, Weather
from infra.topology import Queue, QueueMapping, Topology, pipeline
from ingest.breaker import RejectLimits
from ingest.limits import FIFO
from ingest.parking import Parking
from sinks import registry
from sinks.bucket import Bucket

URL = "https://sqs.us-east-1.amazonaws.com/123456789012/"
BREAKER = RejectLimits(records_min=4, keys_min=2)
"""The breaker's limits where it is to trip: Deliveries here are of few records."""


class Account:
    """One pipeline, as a scenario has it.

    `expired` are objects that a lifecycle rule removed, `retired` those that the lake has instead.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.topology = topology()
        self.scheduler = Scheduler(EPOCH)
        self.weather = Weather(scenario, self.scheduler)
        self.known = Known(now=lambda: self.scheduler.now)
        self.expired: dict[str, bytes] = {}
        self.retired: dict[str, bytes] = {}
        self._services()
        self._sources()
        if "versions" in scenario.verbs:
            self.publish(1)

    def _services(self) -> None:
        self.s3 = S3(self.weather, {self.topology.bucket: {}})
        self.dynamodb = DynamoDB(self.weather, {t.name: {} for t in self.topology.tables})
        self.events = EventBridge(self.weather, {self.topology.bus.name: []})
        self.held = self._queues()
        self.mappings = Mappings(self.weather)
        self.clients: dict[str, Any] = {
            "s3": self.s3,
            "dynamodb": self.dynamodb,
            "sqs": Sqs(self.weather, {URL + name: queue for name, queue in self.held.items()}),
            "lambda": self.mappings,
        }
        limits = BREAKER if self.scenario.profile == "breaker" else RejectLimits()
        self.lambdas = Lambdas(self.topology, self.weather, self.scheduler, self.clients, limits)
        self.known.judges = self.lambdas.judges
        machines = {arn_of(self.topology): definition()}
        self.machines = StateMachines(
            self.weather, self.lambdas, self.dynamodb, self.events, machines
        )
        self.clients["stepfunctions"] = self.machines

    def _sources(self) -> None:
        self.stream = self._stream()
        self.queue = self._queue(self.main_queue, self.topology.queue_mapping, self.known)
        self.repair = self._queue(self.topology.repair_queue, self.topology.repair_mapping, Deaf())
        self.mappings.switches = {
            source.function: Switch(source.function, source.arn, source.switch)
            for source in (self.stream, self.queue)
        }

    @property
    def drained(self) -> bool:
        """Whether every record is settled and every debt paid."""
        return self.stream.drained and self.queue.drained and self.repair.drained

    @property
    def letters(self) -> dict[str, str]:
        """The URL of the dead-letter queue by the name of the queue it is for."""
        return {self.main_queue.name: URL + self.topology.dead_letters.name}

    def parking(self) -> Parking:
        """Where records are parked."""
        return Parking(
            bucket=Bucket(self.clients["s3"], self.topology.bucket),
            stream=self.stream.name,
            prefix=self.topology.stream_mapping.on_failure_prefix,
            sqs=self.clients["sqs"],
            letters=self.letters,
        )

    def publish(self, version: int) -> None:
        """A version of the contract is put beside the others."""
        registry.publish(self.calm(), contracts.contract(version, self.scenario.verbs))

    def use(self, version: int) -> None:
        """A version reads what names none. One that was never published cannot be used."""
        with suppress(registry.RegistryError):
            registry.use(self.calm(), NAME, version)

    def calm(self) -> Bucket:
        """The bucket for whoever tries until it works."""
        calm: Any = S3(Calm(self.weather.clock), self.s3.buckets)
        return Bucket(calm, self.topology.bucket)

    def patient(self, dies_at: int = 0) -> Bucket:
        """The bucket for a command, whose client tries again; it may die at a write."""
        patient: Any = S3(Patient(self.weather, dies_at), self.s3.buckets)
        return Bucket(patient, self.topology.bucket)

    def expire(self) -> None:
        """Raw objects go, whoever still wants to read them."""
        objects = self.s3.buckets[self.topology.bucket]
        for key in [key for key in objects if key.startswith("raw/")]:
            self.expired[key] = objects.pop(key).data

    @property
    def gone(self) -> dict[str, bytes]:
        """Objects that were there."""
        return self.expired | self.retired

    def objects(self) -> dict[str, bytes]:
        """The bucket's objects, as they are now."""
        held = self.s3.buckets[self.topology.bucket]
        return {key: stored.data for key, stored in held.items()}

    def stores(self) -> Stores:
        """What lies in it."""
        tables = self.dynamodb.tables
        done = [e for e in self.machines.executions if e.status == "SUCCEEDED"]
        return Stores(
            objects=self.objects(),
            gone=self.gone,
            hot=tables[self.topology.hot_table.name],
            ledger=tables[self.topology.ledger_table.name],
            succeeded=[execution.arn for execution in done],
            executions=self.machines.executions,
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
