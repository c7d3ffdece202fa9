"""What a seed stands for: what is produced, what happens when, and how bad the weather is.

A scenario is plain data, so that a failing one can be made smaller: fewer records, fewer events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from random import Random
from typing import Literal, get_args

from infra.esm.answers import Undocumented
from infra.simulation.contracts import LATEST, NO_VERBS, VERBS, Verb
from infra.simulation.drawn import SPAN_SECONDS, Made, records

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
    "publish",  # a version is put beside those in use, and reads what names none
    "use",  # ... a published one does
    "code",  # Transform gets another code version
    "hot contract",  # Hot gets the contract version that Transform has, at another moment
    "reprocess",  # all that arrived runs again by a contract version, under a greater epoch
    "replay",  # what is set aside and parked runs again, by a contract version
    "sweep",  # an operator looks for hot rows that nobody owes
    "compact",  # what landed is taken into the lake, so many rows at a time
    "seal",  # hours that are final are sealed
    "read",  # an analyst reads the records, and somebody else counts them by hand
    "split",  # a shard is split
    "merge",  # two shards are merged
    "restart",  # a mapping's poller is replaced: it reads again from its checkpoint
    "outage",  # one service answers nothing for a while
    "clock",  # the functions' clocks jump
    "expire",  # raw objects go
    "broken",  # Transform dies of whatever it gets, for a while
    "hot key",  # one device's partition takes no more for a while
]

Mend = Literal["contract", "accept"]
"""What an operator does when the breaker trips: mend the rules, or accept the rejects."""

SERVICES = ("s3", "dynamodb", "states", "lambda", "events")
FAULTS_SECONDS = 600.0  # after which calls no longer fail
HOUR_SECONDS = 3_600.0
LAKES_EVERY = 4  # seeds: a compaction takes as long as all else


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
    verbs: frozenset[Verb] = NO_VERBS
    undocumented: Undocumented = field(default_factory=Undocumented)
    allowed: frozenset[str] | None = None

    @cached_property
    def calm_at(self) -> float:
        """When the last fault is over."""
        return max([FAULTS_SECONDS, *(e.at + e.seconds for e in self.events)])

    @cached_property
    def has_lake(self) -> bool:
        """Whether anything is compacted."""
        return any(event.kind == "compact" for event in self.events)


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
    verbs = frozenset(random.sample(VERBS, random.choice((0, 0, 1, 1, 2, 3))))
    return Scenario(
        seed=seed,
        profile=profile,
        records=records(random, profile, verbs),
        events=(*_events(random, profile, verbs), *_lake(seed)),
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
        verbs=verbs | (LATEST if random.random() < 0.3 else NO_VERBS),  # noqa: PLR2004  sometimes
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


def _events(random: Random, profile: str, verbs: frozenset[Verb]) -> tuple[Event, ...]:
    found: list[Event] = []
    some = partial(_some, random, found)
    if profile == "reprocess":
        found.append(Event(random.uniform(0, 60), "contract", str(random.choice((1, 2)))))
        found.append(Event(random.uniform(20, 200), "reprocess", str(random.choice((1, 2)))))
    if profile == "replay":
        found.extend(
            Event(random.uniform(20, 400), "replay", str(random.choice((1, 2, 2))))
            for _ in range(random.randint(1, 2))
        )
    found += _deployments(random, profile, verbs)
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


def _deployments(random: Random, profile: str, verbs: frozenset[Verb]) -> list[Event]:
    found: list[Event] = []
    some = partial(_some, random, found)
    if profile in {"deploy", "weather", "crashes", "reprocess"}:
        some("hot contract", 2)
    if profile in {"deploy", "weather", "crashes"}:
        for _ in range(random.randint(0, 4 if profile == "deploy" else 1)):
            some("contract", 1, str(random.choice((1, 2, 2))))
        some("code", 1, str(random.randrange(2)))
    if "versions" in verbs:
        some("publish", 2, str(random.choice((2, 3))))
        some("publish", 1, "3")
        some("use", 2, str(random.choice((1, 1, 2))))
    return found


def _lake(seed: int) -> list[Event]:
    """Compactions, some two at once, and readers while they run. Other chances are as without."""
    if seed % LAKES_EVERY:
        return []
    random = Random(f"{seed}/lake")  # noqa: S311  a seed must give the same schedule again
    found: list[Event] = []
    for at in (random.uniform(5, 200), random.uniform(200, 590)):
        both = random.choice((1, 1, 2))
        found += [
            Event(at + random.uniform(0, 2), "compact", str(random.choice((1, 4, 1_000))))
            for _ in range(both)
        ]
        found.append(Event(at + random.uniform(4, 40), "seal"))
        if random.random() < 0.6:  # noqa: PLR2004  mostly
            found.append(Event(at + random.uniform(0, 6), "read"))
    return found


def _some(  # noqa: PLR0913, PLR0917  an event, and where it is drawn
    random: Random,
    found: list[Event],
    kind: EventKind,
    most: int,
    value: str = "",
    seconds: float = 0.0,
) -> None:
    """At most so many of these events, at any time."""
    found.extend(
        Event(random.uniform(0, SPAN_SECONDS), kind, value, seconds)
        for _ in range(random.randint(0, most))
    )
