"""Watermarks: up to which arrival everything that a source had is settled.

Of a shard whose records are worked through one batch after the other, the newest Delivery that is
settled as a whole says it: what is before it was settled or parked. With a greater parallelization
factor a key may wait while others go on, so nothing newer than the oldest record known to wait is
counted, and a margin less: approximate. A queue is known when it is empty, or by the age of its
oldest message: approximate as well. A shard that nothing is known of holds everything back.

Pure: attempts in, watermarks out. Moments are microseconds since 1970.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from sinks.ledger import Attempt

Place = tuple[str, str, str]
"""A position: stream, shard, sequence."""

Of = tuple[str, str]
"""A stream and a shard of it."""


@dataclass(frozen=True)
class Shard:
    """A shard as its stream lists it. A closed one is given no records any more."""

    name: str
    start: str = "0"  # of its range of hash keys
    parents: tuple[str, ...] = ()
    closed: bool = False


@dataclass(frozen=True)
class Lanes:
    """How a stream's mapping works: how many keys of a shard at once, and what that leaves open.

    `margin` is how long a record may be on its way that nothing says anything of yet.
    """

    factor: int = 1
    margin: int = 0


@dataclass(frozen=True)
class Watermark:
    """Of one source: all that arrived `until` then is settled; None where nothing is known.

    `ended` is a shard that was read to its end: it holds nothing back. `why` is for people.
    """

    source: str
    until: int | None
    exact: bool
    why: str
    ended: bool = False


@dataclass(frozen=True)
class Queue:
    """What a queue said of itself at a moment: how many messages it has, and how old the oldest is.

    `emptied` is when it was last known to be empty, `used` whether a message ever came through it.
    """

    name: str
    asked_at: int
    messages: int
    oldest_seconds: float | None = None
    emptied: int | None = None
    used: bool = True

    @property
    def until(self) -> int | None:
        """When it was last without a message that had come by then."""
        if not self.messages:
            return self.asked_at
        if self.oldest_seconds is not None:
            return max(self.asked_at - int(self.oldest_seconds * 1e6), self.emptied or 0)
        return self.emptied


def settled(attempts: Iterable[Attempt]) -> dict[Of, int]:
    """The newest arrival in Deliveries of which every record has its fate, by stream and shard.

    What no mapping brought (a replay) says nothing of how far one is.
    """
    done: dict[str, set[int]] = defaultdict(set)
    newest: dict[Of, int] = {}
    for made in attempts:
        if not (made.shard and made.archived):
            continue
        done[made.raw_key].update(made.done)
        if len(done[made.raw_key]) == made.archived:
            of = (made.stream, made.shard)
            newest[of] = max(newest.get(of, 0), made.last_arrival)
    return newest


@dataclass(frozen=True)
class Waiting:
    """What is received and neither settled nor parked: the oldest arrival by stream and shard.

    `since` is the oldest arrival in Deliveries that hold any of it, None where nothing waits.
    """

    oldest: Mapping[Of, int]
    since: int | None = None


def waiting(
    archived: Mapping[str, Iterable[tuple[Place, int]]],
    attempts: Iterable[Attempt],
    parked: Collection[Place] = (),
) -> Waiting:
    """What waits, where `archived` has the position and arrival of each record of raw objects."""
    held = {key: list(records) for key, records in archived.items()}
    done = set(parked)
    for made in attempts:
        records = held.get(made.raw_key, [])
        done.update(records[index][0] for index in made.done if index < len(records))
    oldest: dict[Of, int] = {}
    since = []
    for records in held.values():
        left = [(place[:2], arrival) for place, arrival in records if place not in done]
        for of, arrival in left:
            oldest[of] = min(oldest.get(of, arrival), arrival)
        if left:
            since.append(min(arrival for _, arrival in records))
    return Waiting(oldest, min(since, default=None))


def of_shards(
    stream: str,
    shards: Iterable[Shard],
    newest: Mapping[Of, int],
    oldest: Mapping[Of, int],
    lanes: Lanes,
) -> list[Watermark]:
    """The watermark of each shard of a stream, from what is `settled` and what is `waiting`."""
    every = {shard.name: shard for shard in shards}
    begun = {shard for of, shard in newest if of == stream}
    ended = _ended(every, begun)
    return [
        _of_shard(stream, shard, newest, oldest, lanes, ended=shard.name in ended)
        for shard in every.values()
    ]


def of_queue(queue: Queue) -> Watermark:
    """The watermark of a queue: approximate, but of one that is empty and never had a message."""
    source = f"queue {queue.name}"
    if not (queue.used or queue.messages):
        return Watermark(source, queue.until, exact=True, why="nothing ever came through it")
    why = "it is empty"
    if queue.messages:
        why = f"{queue.messages:,} messages wait; "
        why += "its oldest message" if queue.oldest_seconds is not None else "when it was empty"
    return Watermark(source, queue.until, exact=False, why=why)


def least(watermarks: Iterable[Watermark]) -> tuple[int | None, bool]:
    """How far all sources are together, and whether that is exact. None: not known of one."""
    every = [one for one in watermarks if not one.ended]
    known = [one.until for one in every if one.until is not None]
    exact = all(one.exact for one in every)
    return (min(known) if known and len(known) == len(every) else None), exact


def _of_shard(  # noqa: PLR0913  a shard, and what is known of it
    stream: str,
    shard: Shard,
    newest: Mapping[Of, int],
    oldest: Mapping[Of, int],
    lanes: Lanes,
    *,
    ended: bool,
) -> Watermark:
    name, of = f"{stream}/{shard.name}", (stream, shard.name)
    until, exact = newest.get(of), lanes.factor == 1
    if ended:
        return Watermark(name, until, exact, "read to its end", ended=True)
    if until is None:
        return Watermark(name, None, exact, "nothing of it has been settled yet")
    if exact:
        return Watermark(name, until, exact, "its newest settled record")
    until, why = until - lanes.margin, "its newest settled record, less a margin"
    if of in oldest and oldest[of] - 1 < until:
        until, why = oldest[of] - 1, "a record of it waits"
    return Watermark(name, until, exact, why)


def _ended(shards: Mapping[str, Shard], begun: Collection[str]) -> set[str]:
    """Shards that were read to their end: a child is begun when its parents are."""
    ended: set[str] = set()
    ready = [name for name in shards if name in begun]
    while ready:
        for parent in shards[ready.pop()].parents:
            if parent in shards and parent not in ended:
                ended.add(parent)
                ready.append(parent)
    return ended
