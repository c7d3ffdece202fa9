"""Simulated time, and a handler in it: run as Lambda would, with faults, each run recorded."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, get_args

from infra.esm.answers import Meaning, Result
from infra.esm.events import Place

EPOCH = 1_795_521_600.0  # 2026-11-24T12:00:00Z: when simulated time begins
REGION, ACCOUNT = "us-east-1", "123456789012"
SLOW = 0.9  # of the timeout
IN_PLACE_MAX = 1_000  # steps without time passing: more is a machine that turns in circles

Handler = Callable[[Any, Any], Any]
"""A Lambda handler: event and context to answer."""

Fault = Literal["", "throttle", "error", "timeout", "lost", "slow"]
"""What goes wrong around an invocation.

`throttle`: it does not take place. `error`, `timeout`: it dies before the handler has done
anything. `lost`: the handler did its work, and its answer got lost. `slow`: it takes long.
"""


class SimulationError(RuntimeError):
    """The simulation cannot go on: a machine asks for the same moment again and again."""


@dataclass(frozen=True)
class Faults:
    """Which fault an invocation meets: the script's, one after the other, then by chance.

    The fields are probabilities, together at most 1.
    """

    throttle: float = 0.0
    error: float = 0.0
    timeout: float = 0.0
    lost: float = 0.0
    slow: float = 0.0
    script: tuple[Fault, ...] = ()

    def pick(self, number: int, random: Random) -> Fault:
        """The fault of invocation `number`, from 0."""
        if number < len(self.script):
            return self.script[number]
        left = random.random()
        for fault in get_args(Fault)[1:]:
            left -= getattr(self, fault)
            if left < 0:
                return fault  # type: ignore[no-any-return]  # get_args knows no types
        return ""


@dataclass(frozen=True)
class Invocation:
    """One invocation: when (seconds since the start), what for, and what the mapping made of it."""

    at: float
    seconds: float
    place: str
    identifiers: tuple[str, ...]
    keys: tuple[str | None, ...]
    fault: Fault
    answer: Any
    meaning: Meaning

    @property
    def took_place(self) -> bool:
        """Whether the handler ran, whatever became of its answer."""
        return self.fault in {"", "slow", "lost"}


@dataclass
class Timeline:
    """Simulated time: it jumps to whatever comes next."""

    now: float = EPOCH
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _count: int = 0
    _in_place: int = 0

    def at(self, moment: float, event: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (max(moment, self.now), self._count, event))

    def advance(self, wake: float | None, until: float) -> bool:
        """Go to the next event or to `wake` and run what is due; False if none is before `until`.

        Raises `SimulationError` if time stands still for too long.
        """
        moments = [] if wake is None else [max(wake, self.now)]
        moments += [self._events[0][0]] if self._events else []
        if not moments or min(moments) > until:
            return False
        self._in_place = self._in_place + 1 if min(moments) == self.now else 0
        if self._in_place > IN_PLACE_MAX:
            raise SimulationError(f"time stands still at {self.now - EPOCH} s")
        self.now = min(moments)
        while self._events and self._events[0][0] <= self.now:
            heapq.heappop(self._events)[2]()
        return True


class Context:
    """What a handler gets as its context."""

    memory_limit_in_mb = 512
    function_version = "$LATEST"

    def __init__(self, name: str, request: str, timeout_seconds: float) -> None:
        self.function_name = name
        self.invoked_function_arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"
        self.aws_request_id = request
        self._remaining_ms = round(timeout_seconds * 1_000)

    def get_remaining_time_in_millis(self) -> int:
        """All of the timeout: simulated time stands still while a handler runs."""
        return self._remaining_ms


@dataclass
class Function:
    """A handler as a Lambda function: with a timeout, a concurrency, faults and a record of it all.

    `seconds` is how long an invocation takes when nothing slows it down.
    """

    handler: Handler
    faults: Faults = field(default_factory=Faults)
    timeout_seconds: float = 3.0
    seconds: float = 0.1
    reserved_concurrency: int | None = None
    seed: int = 0
    name: str = "function"
    running: int = 0
    count: int = 0
    answer: Any = None

    def __post_init__(self) -> None:
        self._random = Random(self.seed)  # noqa: S311  a seed must give the same faults again

    @property
    def arn(self) -> str:
        return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{self.name}"

    def invoke(self, payload: bytes) -> tuple[Fault, float, Result]:
        """The fault it met, the seconds it took and what came of it."""
        fault = self.faults.pick(self.count, self._random)
        self.count += 1
        self.answer = None
        if self.reserved_concurrency is not None and self.running >= self.reserved_concurrency:
            fault = "throttle"
        match fault:
            case "throttle":
                return fault, 0.0, Result("refused", error="TooManyRequestsException")
            case "error":
                return fault, self.seconds, Result("failed", b'{"errorType": "Fault"}', "Unhandled")
            case "timeout":
                return fault, self.timeout_seconds, self._timed_out()
            case "lost":
                self._handle(payload)
                return fault, self.timeout_seconds, self._timed_out()
            case "slow":
                return fault, SLOW * self.timeout_seconds, self._handle(payload)
            case "":
                return fault, self.seconds, self._handle(payload)

    def _timed_out(self) -> Result:
        told = {"errorMessage": f"Task timed out after {self.timeout_seconds:.2f} seconds"}
        return Result("failed", json.dumps(told).encode(), "Unhandled")

    def _handle(self, payload: bytes) -> Result:
        context = Context(self.name, f"request-{self.count}", self.timeout_seconds)
        try:
            self.answer = self.handler(json.loads(payload), context)
            return Result("answered", json.dumps(self.answer).encode())
        except Exception as error:  # noqa: BLE001  as Lambda: whatever a handler raises is its error
            told = {"errorType": type(error).__name__, "errorMessage": str(error)}
            return Result("failed", json.dumps(told).encode(), "Unhandled")


def place(source_arn: str, function: Function, shard: str = "") -> Place:
    """The fields of an event that say where it comes from."""
    role = f"arn:aws:iam::{ACCOUNT}:role/{function.name}"
    return Place(source_arn, function.arn, REGION, role, shard)
