"""The functions as Lambda runs them: the real handlers, each invocation a task of its own.

An invocation ends by answering, raising, crashing or at its timeout; whoever invoked it hears of
that, or does not. What it had begun goes on nowhere: only its effects remain.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from infra.doubles.stepfunctions import StateFailed, StateMachines
from infra.doubles.world import Call
from infra.esm.answers import Result
from infra.simulation import contracts
from infra.simulation.messages import Judge
from infra.simulation.scheduler import Scheduler, Task
from infra.simulation.weather import Weather
from infra.topology import Function, Topology
from ingest.breaker import Breaker, RejectLimits
from ingest.settings import Settings, Wiring
from ingest.workflow import BotoExecutions, Workflow
from sinks.bucket import Bucket
from sinks.registry import Index
from sinks.repair import Limits
from sinks.table import Table, Waiting
from transform import pipeline
from transform.contract import Contract
from transform.records import Batch

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

KILLS = b'"kills"'
"""A body with this in it is the end of the process that opens it."""
HANGS = b'"hangs"'
SHARE_MAX = 0.7
"""Of a Delivery's hot rows may be a debt: Deliveries of few rows shall have both, debts and not."""
FOREVER_SECONDS = 10_000.0


@dataclass
class Deployed:
    """Which rules are deployed: to Transform, and at another moment to Hot."""

    version: int = 1
    code: int = 0


class Rules(pipeline.Transform):
    """Transform, which dies of some bodies as it may of memory or time."""

    def apply(self, raw: pa.Table, *arguments: Any) -> Batch:
        bodies = raw.column("_body").to_pylist()
        if any(KILLS in body for body in bodies) or vars(self)["broken"]():
            vars(self)["crash"]()
        if any(HANGS in body for body in bodies):
            vars(self)["sleep"](FOREVER_SECONDS)
        return super().apply(raw, *arguments)


class SimulatedWiring(Wiring):
    """A function's wiring onto the doubles. Its rules are those deployed when it is asked."""

    def __init__(self, settings: Settings, lambdas: Lambdas, deployed: Deployed) -> None:
        super().__init__(settings, lambdas.clock)
        self._lambdas, self._deployed = lambdas, deployed
        self._made_by = Deployed()

    @property
    def contract(self) -> Contract:
        return contracts.contract(self._deployed.version, self._lambdas.verbs)

    def transform(self, epoch: int) -> pipeline.Transform:
        deployed = replace(self._deployed)
        if deployed != self._made_by:
            self._rules.clear()
            self._made_by = deployed
        return super().transform(epoch)

    def _made(self, epoch: int, index: Index) -> pipeline.Transform:
        deployed = replace(self._deployed)
        return self._lambdas.rules(super()._made(epoch, index), deployed, index)


@dataclass(frozen=True)
class Context:
    """What Lambda tells a function of its time. That clock does not jump."""

    scheduler: Scheduler
    ends: float
    function_name: str

    def get_remaining_time_in_millis(self) -> int:
        return max(round((self.ends - self.scheduler.now) * 1_000), 0)


class Lambdas:
    """The account's functions, and the host of its executions."""

    def __init__(
        self,
        topology: Topology,
        weather: Weather,
        scheduler: Scheduler,
        clients: dict[str, Any],
        breaker: RejectLimits,
    ) -> None:
        self.topology, self.weather, self.scheduler = topology, weather, scheduler
        self.breaker = breaker
        self.clients, self.verbs = clients, weather.scenario.verbs
        self.judges: dict[str, Judge] = {}
        self.skew = 0.0
        self.broken_until = 0.0
        self.deployed = Deployed()
        self.hot_deployed = Deployed()
        self.errors: list[str] = []
        self.invocations = 0
        self._functions = {f.name: f for f in topology.functions}
        self._handlers = {f.name: self._handler(f) for f in topology.functions}
        self._rules: dict[tuple[str, int], pipeline.Transform] = {}

    def clock(self) -> float:
        """The functions' clock, which may be wrong."""
        return self.scheduler.now + self.skew

    def invoke(self, function: str, payload: dict[str, Any]) -> Any:
        """Lambda's Invoke, as an execution's task calls it."""
        name = function.rpartition(":")[2]
        call = Call("lambda", "Invoke", name)
        return self.weather.effect(call, lambda: self._answer(name, payload))

    def deliver(self, function: str, event: bytes, done: Callable[[Result], None]) -> None:
        """Invoke a function with an event for a mapping, and say what came of it."""
        place = f"deliver.{function}"
        fault = self.weather.pick(place, ("refused", "unheard"))
        if fault == "refused" or self.weather.outages.get("lambda", 0.0) > self.scheduler.now:
            self.scheduler.at(
                self.scheduler.now + 1.0, lambda: done(Result("refused", error="Throttled"))
            )
            return

        def work() -> None:
            task = self.start(function, json.loads(event))
            task.wait()
            if fault == "unheard":
                done(Result("failed", b"{}", "Unhandled"))
            elif task.killed or task.error is not None:
                told = {"errorType": type(task.error).__name__, "errorMessage": str(task.error)}
                done(Result("failed", json.dumps(told).encode(), "Unhandled"))
            else:
                done(Result("answered", json.dumps(task.result).encode()))

        self.scheduler.spawn(work, place)

    def start(self, name: str, payload: Any) -> Task:
        """Begin an invocation; Lambda ends it at its timeout."""
        self.invocations += 1
        ends = self.scheduler.now + self._functions[name].timeout_seconds
        context = Context(self.scheduler, ends, name)
        handler = self._handlers[name]
        task = self.scheduler.spawn(
            lambda: self._run(name, handler, payload, context), name, mortal=True
        )
        self.scheduler.at(ends, task.kill)
        return task

    def within(self, work: Callable[[], T], seconds: float, what: str) -> T:
        """What `work` returns, awaited so long; it goes on if nobody waits any more."""
        if what == "StartSyncExecution" and self.weather.pick("await", ("abandoned",)):
            patience = self.weather.chance("abandoned", self.weather.happened[-1])
            seconds = min(seconds, 20.0 * patience)
        task = self.scheduler.spawn(work, what)
        if not task.wait(seconds):
            raise TimeoutError(what)
        if task.error is not None:
            raise task.error
        return task.result  # type: ignore[no-any-return]

    def sleep(self, seconds: float) -> None:
        self.scheduler.sleep(seconds)

    def uniform(self, low: float, high: float) -> float:
        return self.weather.uniform(low, high)

    def operators(self) -> Wiring:
        """The wiring of a command that an operator runs: a process of its own."""
        return self._wiring(self.topology.ingest_stream)

    def rules(
        self, made: pipeline.Transform, deployed: Deployed, index: Index
    ) -> pipeline.Transform:
        """These rules as this account runs them: the code version is part of the generation.

        Which contract reads what is noted for the oracle by what was deployed and published.
        """
        named = (made.generation.digest, deployed.code)
        if named not in self._rules:
            rules = Rules(made.contract, made.epoch, made.older, made.hash_key)
            plans, verbs = contracts.ready(made)
            vars(rules).update(
                plans=plans,
                verbs=verbs,
                generation=contracts.coded(made.generation, deployed.code),
                sleep=self.scheduler.sleep,
                crash=self._crash,
                clock=self.clock,
                broken=lambda: self.scheduler.now < self.broken_until,
            )
            versions = {deployed.version, *(number for number, _ in index.versions)}
            current = max(deployed.version, index.current)
            self.judges[rules.generation.digest] = Judge(
                self.verbs, current, frozenset(versions), deployed.code
            )
            self._rules[named] = rules
        return self._rules[named]

    def _crash(self) -> None:
        if self.scheduler.current is not None:
            self.scheduler.current.crash()

    def _answer(self, name: str, payload: Any) -> Any:
        task = self.start(name, payload)
        task.wait()
        if task.killed:
            raise StateFailed("Lambda.Unknown", "the process ended")
        if task.error is not None:
            raise StateFailed(type(task.error).__name__, str(task.error))
        return task.result

    def _run(
        self, name: str, handler: Callable[[Any, Any], Any], payload: Any, context: Context
    ) -> Any:
        try:
            return json.loads(json.dumps(handler(payload, context)))
        except Exception as error:
            self.errors.append(f"{name}: {type(error).__name__}: {error}")
            raise

    def _handler(self, function: Function) -> Callable[[Any, Any], Any]:
        """The real handler, with a wiring of this account in the place of the environment's."""
        module, _, name = function.handler.rpartition(".")
        real = getattr(importlib.import_module(module), name)
        wiring = self._wiring(function)
        return FunctionType(real.__code__, {**real.__globals__, "wiring": lambda: wiring}, name)

    def _wiring(self, function: Function) -> Wiring:
        settings = Settings.of(dict(function.environment))
        settings = replace(settings, repair=Limits(share_max=SHARE_MAX), breaker=self.breaker)
        hot = function is self.topology.hot
        wiring = SimulatedWiring(settings, self, self.hot_deployed if hot else self.deployed)
        wiring.waiting = Waiting(self.scheduler.sleep, self.weather.uniform)
        wiring.bucket = Bucket(self.clients["s3"], settings.bucket)
        wiring.hot_table = Table(self.clients["dynamodb"], settings.hot_table, threads=1)
        wiring.ledger_table = Table(self.clients["dynamodb"], settings.ledger_table, threads=1)
        wiring.sqs = self.clients["sqs"]
        wiring.parallel = self._parallel
        wiring.breaker = Breaker(wiring.bucket, self.clients["lambda"], settings.pipeline)
        if settings.workflow:
            wiring.workflow = Workflow(BotoExecutions(self._client), arn_of(self.topology))
        return wiring

    def _parallel(self, work: Callable[[Any], Any], parts: Iterable[Any]) -> list[Any]:
        """`map` in threads of the invocation, which end with it."""
        invocation = self.scheduler.current
        tasks = [self.scheduler.spawn(partial(work, part), "thread") for part in parts]
        if invocation is not None:
            invocation.children += tasks
        for task in tasks:
            task.wait()
            if task.error is not None:
                raise task.error
        return [task.result for task in tasks]

    def _client(self, service: str, config: Any) -> Any:
        machines: StateMachines = self.clients[service]
        return machines.client(config.read_timeout)


def arn_of(topology: Topology) -> str:
    """The state machine's ARN."""
    return f"arn:aws:states:us-east-1:123456789012:stateMachine:{topology.workflow.name}"
