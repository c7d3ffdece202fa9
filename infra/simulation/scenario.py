"""What a seed stands for: what is produced, what happens when, and how bad the weather is.

A scenario is plain data, so that a failing one can be made smaller: fewer records, fewer events.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import Literal, get_args

from infra.esm.answers import Undocumented
from infra.esm.simulate import EPOCH
from transform.contract import HotLayout
from transform.kpl import aggregate
from transform.records import Source

FaultKind = Literal[
    "throttle",  # refused by the service: nothing happened
    "error",  # a 5xx: nothing happened
    "timeout",  # no answer, and nothing happened
    "lost",  # it happened, its answer got lost
    "late",  # the caller gave up, and it happened afterwards
    "twice",  # the SDK sent it twice
    "conflict",  # S3's 409
    "partial",  # UnprocessedItems
    "crash before",  # the invocation died as it was about to
    "crash after",  # the invocation died when it had
    "slow",  # it took long
    "abandoned",  # an execution's caller stopped listening; the execution goes on
    "refused",  # an invocation was throttled
    "unheard",  # an invocation's answer got lost
]
"""What goes wrong at one effect or invocation, by its ordinal."""

EventKind = Literal[
    "contract",  # Transform gets another contract version
    "code",  # ... another code version
    "hot contract",  # Hot gets the contract version that Transform has, at another moment
    "reprocess",  # all that arrived runs again by a contract version, under a greater epoch
    "replay",  # what is set aside and parked runs again, by a contract version
    "sweep",  # an operator looks for hot rows that nobody owes
    "split",  # a shard is split
    "merge",  # two shards are merged
    "restart",  # a mapping's poller is replaced: it reads again from its checkpoint
    "outage",  # one service answers nothing for a while
    "clock",  # the functions' clocks jump
    "expire",  # raw objects go
    "broken",  # Transform dies of whatever it gets, for a while
    "hot key",  # one device's partition takes no more for a while
]

KINDS = {
    "good": 10,
    "repeat": 4,  # of a message sent before, in another body
    "conflict": 2,  # an id sent before, with other bytes
    "wide": 3,  # good by some contract versions only
    "broken": 2,  # not JSON
    "oversize": 1,
    "future": 1,  # good or not by its arrival
    "old": 1,  # too old for the hot table
    "rescued": 1,  # with a field that no contract knows
}
"""Messages by kind, and how often."""

MOSTLY_BAD = {"good": 3, "repeat": 1, "wide": 12, "broken": 4}
"""... of which the first contract version rejects most."""

KILLERS = {**KINDS, "kills": 2, "hangs": 1}
"""... with some that Transform dies of."""

Mend = Literal["contract", "accept"]
"""What an operator does when the breaker trips: mend the rules, or accept the rejects."""

SERVICES = ("s3", "dynamodb", "states", "lambda", "events")
SPAN_SECONDS = 120.0  # in which records are produced
FAULTS_SECONDS = 600.0  # after which calls no longer fail
HOUR_SECONDS = 3_600.0
MILLIS = 1_000


@dataclass(frozen=True)
class Made:
    """One record as a producer sent it; `members` are the messages in it."""

    at: float
    source: Literal["kinesis", "sqs"]
    key: str
    body: bytes
    members: tuple[bytes, ...]


@dataclass(frozen=True)
class Event:
    """Something that happens at a time, in seconds since the start."""

    at: float
    kind: EventKind
    value: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Scenario:
    """What happens in one run. `rates` are probabilities by fault, `profile` says what it is for.

    `allowed` None lets every fault happen that chance has; else only those named do.
    """

    seed: int
    profile: str
    records: tuple[Made, ...]
    events: tuple[Event, ...]
    rates: Mapping[FaultKind, float]
    shards: int = 1
    batch: int = 5
    lanes: int = 1
    bisect: bool = True
    regroup: bool = False
    fifo: bool = False
    budget: int | None = None  # how often a record is tried before it is parked
    mend: Mend = "contract"
    layout: HotLayout = "reading"
    undocumented: Undocumented = field(default_factory=Undocumented)
    allowed: frozenset[str] | None = None

    @cached_property
    def calm_at(self) -> float:
        """When the last fault is over."""
        return max([FAULTS_SECONDS, *(e.at + e.seconds for e in self.events)])


PROFILES = {
    "weather": 30,
    "crashes": 20,
    "deploy": 15,
    "poison": 8,
    "reprocess": 8,
    "replay": 7,
    "breaker": 5,
    "outage": 2,
    "calm": 5,
}
"""What a seed is for, and how often."""


def scenario(seed: int) -> Scenario:
    """What this seed stands for."""
    random = Random(seed)  # noqa: S311  a seed must give the same schedule again
    profile = random.choices(list(PROFILES), list(PROFILES.values()))[0]
    return Scenario(
        seed=seed,
        profile=profile,
        records=_records(random, profile),
        events=_events(random, profile),
        rates=_rates(random, profile),
        shards=random.choice((1, 1, 2)),
        batch=random.choice((5, 8) if profile == "breaker" else (2, 3, 5, 8)),
        lanes=random.choice((1, 1, 1, 2)),
        bisect=random.random() < 0.8,  # noqa: PLR2004  mostly, as the topology has it
        regroup=random.random() < 0.3,  # noqa: PLR2004  sometimes, as any mapping might
        undocumented=random.choice(tuple(Undocumented.every())),
        fifo=random.random() < 0.3,  # noqa: PLR2004  sometimes
        budget=random.choice((1, 2, 3)) if profile == "replay" else None,
        mend=random.choice(get_args(Mend)),
        layout=random.choice(("reading", "reading", "latest")),
    )


def _rates(random: Random, profile: str) -> Mapping[FaultKind, float]:
    base = {
        "weather": 0.04,
        "crashes": 0.02,
        "deploy": 0.02,
        "outage": 0.005,
        "reprocess": 0.02,
        "replay": 0.03,
        "breaker": 0.01,
    }.get(profile, 0.0)
    rates: dict[FaultKind, float] = {
        kind: base * random.choice((0, 0.5, 1, 2)) for kind in get_args(FaultKind)
    }
    if profile == "crashes":
        rates["crash before"] = rates["crash after"] = 0.03
        rates["abandoned"] = rates["unheard"] = 0.1
    return rates


def _events(random: Random, profile: str) -> tuple[Event, ...]:
    found: list[Event] = []

    def some(kind: EventKind, most: int, value: str = "", seconds: float = 0.0) -> None:
        found.extend(
            Event(random.uniform(0, SPAN_SECONDS), kind, value, seconds)
            for _ in range(random.randint(0, most))
        )

    if profile == "reprocess":
        found.append(Event(random.uniform(0, 60), "contract", str(random.choice((1, 2)))))
        found.append(Event(random.uniform(20, 200), "reprocess", str(random.choice((1, 2)))))
    if profile == "replay":
        found.extend(
            Event(random.uniform(20, 400), "replay", str(random.choice((1, 2, 2))))
            for _ in range(random.randint(1, 2))
        )
    if profile in {"deploy", "weather", "crashes", "reprocess"}:
        some("hot contract", 2)
    if profile in {"deploy", "weather", "crashes"}:
        for _ in range(random.randint(0, 4 if profile == "deploy" else 1)):
            some("contract", 1, str(random.choice((1, 2, 2))))
        some("code", 1, str(random.randrange(2)))
    if profile == "outage":
        service = random.choice(SERVICES)
        found.append(Event(random.uniform(0, SPAN_SECONDS), "outage", service, HOUR_SECONDS))
    if profile not in {"calm", "poison"}:
        some("restart", 2)
        some("clock", 1, str(random.choice((-400, -20, 20, 90, 400))))
        some("expire", 1)
        some("hot key", 1, "s-0", random.choice((30.0, 200.0)))
        some("broken", 1 if random.random() < 0.3 else 0, "", 60.0)  # noqa: PLR2004  now and then
    some(random.choice(("split", "merge")), 2)
    if profile != "calm" and random.random() < 0.2:  # noqa: PLR2004  now and then
        found.append(Event(random.uniform(900, 2_500), "sweep"))
    return tuple(sorted(found, key=lambda event: event.at))


def _records(random: Random, profile: str) -> tuple[Made, ...]:
    """What producers send, with repeats of single messages in other bodies."""
    kinds = {"poison": KILLERS, "breaker": MOSTLY_BAD}.get(profile, KINDS)
    count = random.randint(8 if profile == "breaker" else 1, 14)
    only: tuple[tuple[Source, ...], ...] = (("kinesis",), ("sqs",), ("kinesis", "sqs"))
    sources = random.choice((only[0], *only))
    sent: list[bytes] = []
    made: list[Made] = []
    for number in range(count):
        source = random.choice(sources)
        members = _members(random, number, sent, kinds)
        sent += members
        whole = source == "kinesis" and (len(members) > 1 or random.random() < 0.1)  # noqa: PLR2004
        if not whole:
            members = members[:1]
        body = (
            aggregate([(member_key(n), m) for n, m in enumerate(members)]) if whole else members[0]
        )
        key = f"k-{random.randrange(4)}"
        at = random.uniform(0, random.choice((1.0, SPAN_SECONDS)))
        made.append(Made(at, source, key, body, tuple(members)))
    return tuple(sorted(made, key=lambda record: record.at))


def member_key(number: int) -> str:
    """The partition key of an aggregate's message."""
    return f"k-{number}"


def _members(
    random: Random, number: int, sent: list[bytes], kinds: Mapping[str, int]
) -> list[bytes]:
    count = random.choice((1, 1, 1, 2, 3))
    chosen = random.choices(list(kinds), list(kinds.values()), k=count)
    return [_message(random, 10 * number + n, sent, kind) for n, kind in enumerate(chosen)]


def _message(random: Random, number: int, sent: list[bytes], kind: str) -> bytes:
    reading = {
        "device_id": f"s-{number % 3}",
        "ts": round(EPOCH * MILLIS) + number,
        "seq": number,
        "temperature": 20.5,
    }
    match kind:
        case "repeat" if sent:
            return random.choice(sent)
        case "conflict":
            reading |= {"ts": round(EPOCH * MILLIS), "seq": 0, "temperature": number}
        case "wide":
            reading["temperature"] = 150
        case "kills" | "hangs":
            return json.dumps({kind: number}).encode()
        case "broken":
            return b"no" * (number % 7 + 1)
        case "oversize":
            reading["more"] = "x" * 300
        case "future":
            reading["ts"] = round((EPOCH + 400 + number) * MILLIS)
        case "old":
            reading["ts"] = round((EPOCH - 40 * 86_400) * MILLIS) + number
        case "rescued":
            reading["more"] = number
    return json.dumps(reading, separators=(",", ":")).encode()
