"""The world of a simulation: what becomes of each effect, by seed and ordinal.

The n-th call of an operation meets the same fate in every run of a seed, whatever happened before
it as far as that can be: so a schedule can be made smaller by taking single faults out of it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar, cast

from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from infra.doubles.world import Call, Fault, Service, happening
from infra.esm.simulate import EPOCH
from infra.simulation.scenario import FaultKind, Scenario
from infra.simulation.scheduler import Killed, Scheduler

T = TypeVar("T")

LATENCY_SECONDS = 0.05
EVEN = 0.5
SLOW_SECONDS = 30.0
SDK_RETRIES_MAX = 3
SERVER_ERROR = 500  # HTTP, and above: of S3, throttles too
TIMEOUT_SECONDS: dict[Service, float] = {
    "s3": 15.0,
    "dynamodb": 5.0,
    "sqs": 5.0,
    "states": 1.0,
    "lambda": 1.0,
    "events": 5.0,
}
"""How long a client waits for an answer that does not come."""

CALLS: dict[Service, tuple[FaultKind, ...]] = {
    "s3": ("throttle", "error", "timeout", "lost", "late", "twice", "slow"),
    "dynamodb": ("throttle", "error", "timeout", "lost", "late", "twice", "slow", "partial"),
    "sqs": ("throttle", "error", "timeout", "lost", "late", "twice", "slow"),
    "states": ("throttle", "error"),
    "lambda": ("throttle", "error", "lost"),
    "events": ("throttle", "error", "timeout", "lost", "late", "twice", "slow", "partial"),
}
CRASHES: tuple[FaultKind, ...] = ("crash before", "crash after")


class Weather:
    """The `World` of every double in a run. `happened` names each fault that was injected."""

    def __init__(self, scenario: Scenario, scheduler: Scheduler) -> None:
        self.scenario = scenario
        self.scheduler = scheduler
        self.happened: list[str] = []
        self.outages: dict[str, float] = {}
        self.hot_keys: dict[str, float] = {}
        self.trace = hashlib.blake2b(digest_size=8)
        self._counts: Counter[str] = Counter()
        self._partial: str | None = None

    def clock(self) -> float:
        return self.scheduler.now

    def chance(self, *key: object) -> float:
        """A number in [0, 1) that this seed has for this key."""
        text = f"{self.scenario.seed}/{key}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) / 2**64

    def pick(self, place: str, kinds: tuple[FaultKind, ...]) -> FaultKind | None:
        """The fault that the next call at this place meets."""
        self._counts[place] += 1
        if self.clock() >= EPOCH + self.scenario.calm_at:
            return None
        at = f"{place}#{self._counts[place]}"
        left = self.chance("fault", at)
        for kind in kinds:
            left -= self.scenario.rates.get(kind, 0.0)
            if left < 0:
                return kind if self._may(f"{at} {kind}") else None
        return None

    def effect(self, call: Call, act: Callable[[], T]) -> T:
        """The effect, with what this call meets around it; others go on meanwhile."""
        place = f"{call.service}.{call.operation}"
        mortal = self.scheduler.current is not None and self.scheduler.current.mortal
        fault = self.pick(place, self._kinds(call, mortal=mortal))
        if self.outages.get(call.service, 0.0) > self.clock():
            refuses = self.chance("out", place, self._counts[place]) < EVEN
            fault = "throttle" if refuses else "timeout"
        self.note(f"{place} {call.detail} {fault or ''}")
        self.scheduler.sleep(LATENCY_SECONDS * self.chance("before", place, self._counts[place]))
        answer = self._happening(fault, call, act)
        self.scheduler.sleep(LATENCY_SECONDS * self.chance("after", place, self._counts[place]))
        return answer

    def takes(self, call: Call, key: tuple[str, str]) -> bool:  # noqa: ARG002  one batch at a time
        """Whether a table or a bus takes a part of the batch that is being written."""
        device = key[0].partition("#")[0]
        if self.hot_keys.get(device, 0.0) > self.clock():
            return False
        return self._partial is None or self.chance("takes", self._partial, key) < EVEN

    def note(self, what: str) -> None:
        """Add to the trace, whose digest tells whether two runs were the same."""
        self.trace.update(f"{self.clock():.6f} {what}\n".encode())

    def uniform(self, low: float, high: float) -> float:
        self._counts["uniform"] += 1
        return low + (high - low) * self.chance("uniform", self._counts["uniform"])

    def _happening(self, fault: FaultKind | None, call: Call, act: Callable[[], T]) -> T:
        match fault:
            case "crash before" | "crash after":
                if fault == "crash after":
                    _ignored(act)
                raise self.crash()
            case "slow":
                self.scheduler.sleep(SLOW_SECONDS * self.chance("slow", self.happened[-1]))
                return self._act(None, call, act)
            case "late" | "timeout":
                if fault == "late":
                    delay = TIMEOUT_SECONDS[call.service] * (
                        1 + 4 * self.chance("late", self.happened[-1])
                    )
                    self.scheduler.at(self.clock() + delay, lambda: _ignored(act))
                self.scheduler.sleep(TIMEOUT_SECONDS[call.service])
                raise ReadTimeoutError(endpoint_url=f"https://{call.service}")
            case _:
                return self._act(fault, call, act)

    def _act(self, fault: FaultKind | None, call: Call, act: Callable[[], T]) -> T:
        before, self._partial = self._partial, self.happened[-1] if fault == "partial" else None
        try:
            return happening(cast("Fault | None", fault), call, act)
        finally:
            self._partial = before

    def crash(self) -> BaseException:
        """The end of the current task."""
        if self.scheduler.current is not None:
            self.scheduler.current.killed = True
        return Killed()

    def _kinds(self, call: Call, *, mortal: bool) -> tuple[FaultKind, ...]:
        kinds = CALLS[call.service]
        if call.operation == "PutObject":
            kinds = (*kinds, "conflict")
        if call.operation not in {"BatchWriteItem", "PutEvents"}:
            kinds = tuple(kind for kind in kinds if kind != "partial")
        return (*CRASHES, *kinds) if mortal else kinds

    def _may(self, name: str) -> bool:
        allowed = self.scenario.allowed
        if allowed is not None and name not in allowed:
            return False
        self.happened.append(name)
        self.note(name)
        return True


@dataclass
class Patient:
    """The same weather for an SDK's client, which tries again what did not go well.

    Its process dies when it is about to write the object of number `dies_at`, if it comes to that.
    """

    weather: Weather
    dies_at: int = 0
    writes: int = 0

    def clock(self) -> float:
        return self.weather.clock()

    def effect(self, call: Call, act: Callable[[], T]) -> T:
        self.writes += call.operation == "PutObject"
        if self.dies_at and self.writes >= self.dies_at:
            self.weather.note(f"dies at write {self.dies_at}")
            raise self.weather.crash()
        for _ in range(SDK_RETRIES_MAX):
            try:
                return self.weather.effect(call, act)
            except (ReadTimeoutError, ConnectionClosedError):
                continue
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] < SERVER_ERROR:
                    raise
        return self.weather.effect(call, act)

    def takes(self, call: Call, key: tuple[str, str]) -> bool:
        return self.weather.takes(call, key)


def _ignored(act: Callable[[], object]) -> None:
    """It happens although nobody waits for it any more; nobody hears how it went either."""
    with suppress(Exception):
        act()
