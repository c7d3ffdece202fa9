"""What every effect on a double goes through: the one place where faults are injected.

    client.put_object(...)  ──▶  world.effect(call, act)  ──▶  act() on the double's memory

The world decides whether `act` happens, when, how often, and whether its answer comes back. `Calm`
does what is asked; `Scripted` takes faults from a list; the simulation has a world of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar, get_args

from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

T = TypeVar("T")

Service = Literal["s3", "dynamodb", "kinesis", "sqs", "states", "lambda", "events"]

Fault = Literal["throttle", "error", "timeout", "lost", "twice", "conflict", "partial"]
"""What goes wrong with one effect.

`throttle`, `error`: refused by the service, nothing happened. `timeout`: no answer, and nothing
happened. `lost`: it happened, and its answer got lost. `twice`: the SDK sent it again after a lost
answer, so that it happened twice. `conflict`: S3's 409 to a conditional write. `partial`: DynamoDB,
Kinesis or EventBridge takes only some of a batch.
"""
FAULTS: tuple[Fault, ...] = get_args(Fault)

THROTTLED: dict[Service, tuple[str, int]] = {
    "s3": ("SlowDown", 503),
    "dynamodb": ("ProvisionedThroughputExceededException", 400),
    "kinesis": ("LimitExceededException", 400),
    "sqs": ("RequestThrottled", 400),
    "states": ("ThrottlingException", 400),
    "lambda": ("TooManyRequestsException", 429),
    "events": ("ThrottlingException", 400),
}
BROKEN: dict[Service, tuple[str, int]] = {
    "s3": ("InternalError", 500),
    "dynamodb": ("InternalServerError", 500),
    "kinesis": ("InternalFailure", 500),
    "sqs": ("InternalFailure", 500),
    "states": ("InternalFailure", 500),
    "lambda": ("ServiceException", 500),
    "events": ("InternalException", 500),
}


@dataclass(frozen=True, slots=True)
class Call:
    """One request: `operation` as botocore spells it, `detail` says on what."""

    service: Service
    operation: str
    detail: str = ""


class World(Protocol):
    """Where doubles are: it has a time, and lets effects happen or not."""

    def clock(self) -> float:
        """Seconds since 1970."""

    def effect(self, call: Call, act: Callable[[], T]) -> T:
        """Let `act` happen as this world will have it; raises what a client raises."""

    def takes(self, call: Call, key: tuple[str, str]) -> bool:
        """Whether a table takes this item of a batch now, a stream or bus this entry."""


@dataclass
class Calm:
    """Everything happens as asked."""

    clock: Callable[[], float] = time.time

    def effect(self, call: Call, act: Callable[[], T]) -> T:  # noqa: ARG002  calm
        return act()

    def takes(self, call: Call, key: tuple[str, str]) -> bool:  # noqa: ARG002  calm
        return True


@dataclass
class Scripted:
    """One fault for each effect, in order; None and the end of the script are calm."""

    script: Iterable[Fault | None]
    clock: Callable[[], float] = time.time
    calls: list[Call] = field(default_factory=list)
    _fault: Fault | None = None

    def __post_init__(self) -> None:
        self._left = iter(self.script)

    def effect(self, call: Call, act: Callable[[], T]) -> T:
        self.calls.append(call)
        self._fault = next(self._left, None)
        return happening(self._fault, call, act)

    def takes(self, call: Call, key: tuple[str, str]) -> bool:  # noqa: ARG002  every second
        return self._fault != "partial" or hash(key) % 2 == 0


def happening(fault: Fault | None, call: Call, act: Callable[[], T]) -> T:
    """The effect with this fault around it."""
    match fault:
        case None | "partial":
            return act()
        case "throttle":
            raise refused(call, *THROTTLED[call.service])
        case "error":
            raise refused(call, *BROKEN[call.service])
        case "conflict":
            raise refused(call, "ConditionalRequestConflict", 409)
        case "timeout":
            raise ReadTimeoutError(endpoint_url=f"https://{call.service}")
        case "lost":
            act()
            raise ConnectionClosedError(endpoint_url=f"https://{call.service}")
        case "twice":
            try:
                act()
            except ClientError:
                """Its answer got lost, whatever it was."""
            return act()


def refused(call: Call, code: str, status: int = 400, message: str = "") -> ClientError:
    """The error that a client raises for an error answer."""
    response: Any = {
        "Error": {"Code": code, "Message": message or code},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(response, call.operation)
