"""Bad weather for the functions of a local pipeline: throttles, errors, lost answers, dead workers.

The functions, and nobody else, talk to AWS through a proxy that misbehaves by a seeded schedule:
what is refused never reached the endpoint; what is lost was done there and told to nobody; a worker
dies by SIGKILL before one of its calls, or right after it, so between any two of its effects.
Mappings, too, find that Lambda will not invoke. Each kind of fault happens at least once, early,
and then at a rate, however short the run.

What stays in good weather: producers and readers, who talk to the endpoint directly, and the
endpoint's calls of itself, which nobody can stand between: the workflow's item in the ledger, its
events, its invocations of stages, what mappings read and delete. The simulation covers those.

The queue gives back what a dead worker held after `VISIBILITY_SECONDS`, not after the 18 minutes of
the topology. That is less than six times ingest's timeout, against AWS's advice: an attempt that
takes long is overtaken by the next one, one trouble more.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial

from infra.local.emulator import ENVIRONMENT
from infra.local.proxy import Answer, Forward, Request, answer
from infra.local.signature import with_signed_body
from infra.topology import Topology

VISIBILITY_SECONDS = 20
STREAM_BATCH = 250  # small Deliveries, so that there are many of them to disturb
QUEUE_BATCH = 100
DELAY_SECONDS = (0.05, 0.4)  # the least and the most
FIRST_MAX = 3  # a kind's first fault comes at one of its first three occasions

ROLES = ("ingest-kinesis", "ingest-sqs", "transform", "hot")
"""What people know the functions as."""

JSON = {"Content-Type": "application/x-amz-json-1.0"}
XML = {"Content-Type": "application/xml"}
WRITES = frozenset({"BatchWriteItem", "PutItem", "UpdateItem", "TransactWriteItems"})
TARGETS = {
    "DynamoDB_20120810": "dynamodb",
    "AWSStepFunctions": "stepfunctions",
    "AmazonSQS": "sqs",
}
THROTTLES = {
    "dynamodb": ("ProvisionedThroughputExceededException", "ThrottlingException"),
    "stepfunctions": ("ThrottlingException",),
    "sqs": ("RequestThrottled",),
}
SERVER_ERRORS = {
    "dynamodb": "InternalServerError",
    "stepfunctions": "InternalServerException",
    "sqs": "InternalFailure",
}


class Kind(StrEnum):
    """Kinds of faults."""

    THROTTLE = "throttle"
    SERVER_ERROR = "server_error"
    UNPROCESSED = "unprocessed"
    LOST_ANSWER = "lost_answer"
    ZOMBIE = "zombie_execution"
    DELAY = "delay"
    KILLED = "killed_worker"


@dataclass(frozen=True)
class Plan:
    """What may happen where: at a service, or to a function; at a rate of the requests it `fits`.

    `must` is whether it has to happen in every run, early; `most` how often it may, at most, one of
    which is drawn.
    """

    kind: Kind
    where: str
    rate: float
    fits: Callable[[Request], bool]
    must: bool = True
    most: Sequence[int] = ()


class Rule:
    """A plan in one run, and how often it has `happened`."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan = plan
        self.happened = 0
        self._chance = random.Random(f"{seed} {plan.kind} {plan.where}")  # noqa: S311  repeatable
        self._first = self._chance.randint(1, FIRST_MAX) if plan.must else math.inf
        self._most = self._chance.choice(plan.most) if plan.most else math.inf
        self._occasions = 0

    def due(self) -> bool:
        """Whether to act on this occasion; whoever does counts it in `happened`."""
        self._occasions += 1
        if self.happened >= self._most:
            return False
        overdue = not self.happened and self._occasions >= self._first
        return overdue or self._chance.random() < self.plan.rate


def service_of(request: Request) -> str:
    """Which AWS service a request is for: by its target, else by what its signature is for."""
    target = request.headers.get("x-amz-target", "").partition(".")[0]
    if target in TARGETS:
        return TARGETS[target]
    _, _, credential = request.headers.get("authorization", "").partition("Credential=")
    scope = credential.partition(",")[0].split("/")
    return scope[3] if len(scope) > 3 else ""  # noqa: PLR2004  key/day/region/service/aws4_request


def operation_of(request: Request) -> str:
    """The API's own name of what a JSON request asks for, the method of an S3 request."""
    return request.headers.get("x-amz-target", "").rpartition(".")[2] or request.method


def throttle(request: Request, chance: random.Random) -> Answer:
    """How the request's service says that it has had too many."""
    service = service_of(request)
    if service == "s3":
        return _xml("503 Slow Down", "SlowDown", "Please reduce your request rate.")
    return _json("400 Bad Request", chance.choice(THROTTLES[service]), "Rate exceeded")


def server_error(request: Request, chance: random.Random) -> Answer:
    """How the request's service, or the balancer in front of it, breaks."""
    service = service_of(request)
    status = chance.choice(("500 Internal Server Error", "503 Service Unavailable"))
    if service == "s3":
        code = "InternalError" if status.startswith("500") else "ServiceUnavailable"
        return _xml(status, code, "We encountered an internal error. Please try again.")
    return _json(status, SERVER_ERRORS[service], "Internal server error")


async def unprocessed(request: Request, forward: Forward, chance: random.Random) -> Answer:
    """Forward some of a BatchWriteItem's items and hand the others back."""
    asked = json.loads(request.body)
    kept: dict[str, list[object]] = {}
    back: dict[str, list[object]] = {}
    for table, items in asked["RequestItems"].items():
        count = chance.randint(1, len(items))
        chosen = set(chance.sample(range(len(items)), count))
        back[table] = [item for number, item in enumerate(items) if number in chosen]
        if count < len(items):
            kept[table] = [item for number, item in enumerate(items) if number not in chosen]
    if not kept:
        return _signed_off(json.dumps({"UnprocessedItems": back}).encode())
    body = json.dumps({**asked, "RequestItems": kept}).encode()
    secret = ENVIRONMENT["AWS_SECRET_ACCESS_KEY"]
    told = await forward(with_signed_body(request, body, secret))
    if told.status != 200:  # noqa: PLR2004  the endpoint's own refusal
        return told
    answered = json.loads(told.body)
    for table, items in answered.get("UnprocessedItems", {}).items():
        back[table] = [*items, *back.get(table, [])]
    return _signed_off(json.dumps({**answered, "UnprocessedItems": back}).encode())


def _json(status: str, code: str, message: str) -> Answer:
    body = json.dumps({"__type": f"com.amazonaws#{code}", "message": message}).encode()
    return _signed_off(body, status)


def _signed_off(body: bytes, status: str = "200 OK") -> Answer:
    """With the checksum by which DynamoDB's clients know a whole answer."""
    return answer(status, body, {**JSON, "x-amz-crc32": str(zlib.crc32(body))})


def _xml(status: str, code: str, message: str) -> Answer:
    text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return answer(status, f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode(), XML)


class Chaos:
    """The weather of one run over one pipeline.

    `kill` kills a process of a function in the middle of an invocation, if there is one; it is
    given when the functions run.
    """

    def __init__(self, seed: int, plans: Iterable[Plan] | None = None) -> None:
        self.kill: Callable[[str], bool] = lambda _: False
        self._functions: dict[str, str] = {}
        self._chance = random.Random(seed)  # noqa: S311  repeatable
        self._rules = [Rule(plan, seed) for plan in (_plans() if plans is None else plans)]
        self._refusal = Rule(Plan(Kind.THROTTLE, "lambda", 0.04, lambda _: False), seed)
        self._lock = threading.Lock()
        self._calm = False
        self._zombies: set[asyncio.Future[Answer]] = set()

    def over(self, topology: Topology) -> Topology:
        """Take this pipeline as the one to disturb; returns it with small Deliveries."""
        named = (topology.ingest_stream, topology.ingest_queue, topology.transform, topology.hot)
        self._functions = dict(zip(ROLES, (function.name for function in named), strict=True))
        return replace(
            topology,
            stream_mapping=replace(topology.stream_mapping, batch_size=STREAM_BATCH),
            queue_mapping=replace(topology.queue_mapping, batch_size=QUEUE_BATCH),
        )

    def calm(self) -> None:
        """Let the weather be good from now on."""
        self._calm = True

    def role_of(self, function: str) -> str:
        """What people know a function as."""
        return next((role for role, name in self._functions.items() if name == function), function)

    def counts(self) -> dict[str, dict[str, int]]:
        """How often each kind of fault happened, by place."""
        told: dict[str, dict[str, int]] = {}
        for rule in self._all():
            if rule.plan.must or rule.happened:
                told.setdefault(rule.plan.kind, {})[rule.plan.where] = rule.happened
        return told

    def missing(self) -> list[str]:
        """The faults that should have happened and did not."""
        return [
            f"{rule.plan.kind} at {rule.plan.where}"
            for rule in self._all()
            if rule.plan.must and not rule.happened
        ]

    def refuses(self) -> bool:
        """Whether Lambda is too busy for an invocation that a mapping asks for."""
        with self._lock:
            due = not self._calm and self._refusal.due()
            self._refusal.happened += due
        return due

    async def meddle(self, request: Request, forward: Forward) -> Answer | None:
        """What becomes of one request of a function."""
        rule = self._due(request)
        if rule is None:
            return await forward(request)
        match rule.plan.kind:
            case Kind.THROTTLE | Kind.SERVER_ERROR as kind:
                refuse = throttle if kind is Kind.THROTTLE else server_error
                return refuse(request, self._chance)
            case Kind.UNPROCESSED:
                return await unprocessed(request, forward, self._chance)
            case Kind.KILLED:
                return await self._killed(rule, request, forward)
            case Kind.DELAY:
                await asyncio.sleep(self._chance.uniform(*DELAY_SECONDS))
                return await forward(request)
            case Kind.LOST_ANSWER:
                await forward(request)
            case Kind.ZOMBIE:
                execution = asyncio.ensure_future(forward(request))
                self._zombies.add(execution)
                execution.add_done_callback(self._bury)
        return None

    def _all(self) -> list[Rule]:
        return [*self._rules, self._refusal]

    def _due(self, request: Request) -> Rule | None:
        """The rule that meddles with this request: those that never did go first."""
        for rule in sorted(self._rules, key=lambda rule: rule.happened > 0):
            if not self._calm and rule.plan.fits(request) and rule.due():
                rule.happened += 1
                return rule
        return None

    async def _killed(self, rule: Rule, request: Request, forward: Forward) -> Answer | None:
        """Kill a worker of the function that asks, the asking one or one at its side."""
        after = self._chance.choice((True, False))
        told = await forward(request) if after else None
        if not self.kill(self._functions[request.caller]):
            rule.happened -= 1
            return told or await forward(request)
        return told

    def _bury(self, execution: asyncio.Future[Answer]) -> None:
        """Forget an execution that has ended, and whatever it ended with."""
        self._zombies.discard(execution)
        if not execution.cancelled():
            execution.exception()


def _plans() -> Iterator[Plan]:
    """What the weather is made of.

    A Delivery makes about six requests of S3, one of Step Functions, and one of DynamoDB for each
    25 hot items.

    Killed workers are few, and few of ingest's for SQS: what they held is back only after the
    visibility timeout.
    """
    batches, puts = frozenset({"BatchWriteItem"}), frozenset({"PUT"})
    for kind, service, rate, operations in (
        (Kind.THROTTLE, "dynamodb", 0.05, WRITES),
        (Kind.THROTTLE, "s3", 0.04, None),
        (Kind.THROTTLE, "stepfunctions", 0.04, None),
        (Kind.SERVER_ERROR, "dynamodb", 0.03, WRITES),
        (Kind.SERVER_ERROR, "s3", 0.04, None),
        (Kind.SERVER_ERROR, "stepfunctions", 0.04, None),
        (Kind.UNPROCESSED, "dynamodb", 0.05, batches),
        (Kind.LOST_ANSWER, "dynamodb", 0.03, WRITES),
        (Kind.LOST_ANSWER, "s3", 0.05, puts),
        (Kind.LOST_ANSWER, "stepfunctions", 0.04, None),
        (Kind.ZOMBIE, "stepfunctions", 0.04, None),
        (Kind.DELAY, "dynamodb", 0.02, WRITES),
        (Kind.DELAY, "s3", 0.04, None),
        (Kind.DELAY, "stepfunctions", 0.05, None),
    ):
        yield Plan(kind, service, rate, partial(_asks, service, operations))
    for kind in (Kind.THROTTLE, Kind.SERVER_ERROR, Kind.LOST_ANSWER):
        yield Plan(kind, "sqs", 0.1, partial(_asks, "sqs", None), must=False)
    for role in ROLES:
        most = (1, 2) if role == "ingest-sqs" else (4, 5, 6)
        yield Plan(Kind.KILLED, role, 0.03, partial(_comes_from, role), most=most)


def _asks(service: str, operations: frozenset[str] | None, request: Request) -> bool:
    return service_of(request) == service and (
        operations is None or operation_of(request) in operations
    )


def _comes_from(role: str, request: Request) -> bool:
    return request.caller == role
