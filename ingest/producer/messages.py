"""What a producer speaks of, and what can go wrong.

ProducerError
├── Unsendable    no source will ever take this message: it was not accepted
├── Full          no room now: the message was not accepted, put it again later
├── SpillError    the spill cannot be used: taken by another process, or not readable
└── Unsent        closed with messages that nobody has: no spill was given
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class ProducerError(RuntimeError):
    """What a producer cannot do; the message says what to do about it."""


class Unsendable(ProducerError):
    """No source will ever take this message. It was not accepted."""


class Full(ProducerError):
    """There is no room for the message now. It was not accepted."""


class SpillError(ProducerError):
    """The spill's directory cannot be used."""


class Unsent(ProducerError):
    """The producer was closed with messages that were neither acknowledged nor spilled."""


class Message(NamedTuple):
    """A message as it was accepted. The run and the number together are it, and no other."""

    key: str
    data: bytes
    number: int  # counts up over all runs on one spill
    run: bytes  # 16 random bytes of the process that accepted it


MESSAGE_OVERHEAD_BYTES = 300  # of memory, beside a message's key and data


def memory_of(message: Message) -> int:
    """How many bytes of memory a message takes."""
    return len(message.key) + len(message.data) + MESSAGE_OVERHEAD_BYTES


@dataclass(slots=True)
class Entry:
    """One entry of a request: a message, or an aggregate of several."""

    group: str  # what is to stay in order is of one group
    key: str
    data: bytes
    size: int  # bytes, as the service counts them
    messages: Sequence[Message]
    hash_key: str | None = None
    attempts: int = 0
    not_before: float = 0.0  # when it may go again
    alone: bool = False  # a request that held it was refused whole: it may be the reason


@dataclass(frozen=True, slots=True)
class Position:
    """Where an entry is now. A queue has no shards, and its sequence is the message id."""

    stream: str
    shard: str
    sequence: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an entry was not taken."""

    code: str
    detail: str
    final: bool = False  # it will never be taken
    whole: bool = False  # the request was refused, so that each of its entries may be the reason


Answer = Position | Refusal


class Acknowledged(NamedTuple):
    """A message that the source has. `sub` is its place in the aggregate, 0 outside of one."""

    message: Message
    position: Position
    sub: int


def acknowledged(taken: Iterable[tuple[Entry, Position]]) -> list[Acknowledged]:
    """The messages of entries that were taken."""
    return [
        Acknowledged(message, position, sub)
        for entry, position in taken
        for sub, message in enumerate(entry.messages)
    ]


@dataclass(frozen=True)
class Counters:
    """Messages, counted since the producer was made.

    accepted + resumed = acknowledged + failed + unsent, at any moment.
    """

    accepted: int = 0  # `put` returned
    resumed: int = 0  # found in the spill: an earlier run accepted them
    acknowledged: int = 0  # were given a position
    failed: Mapping[str, int] = field(default_factory=dict)  # by reason; see `Spill`
    unsent: int = 0  # in memory or in the spill
    spilled: int = 0  # were written to the spill
    retried: int = 0  # sent again, once for each time
    calls: int = 0  # requests
    spill_bytes: int = 0  # that the spill takes on the disk
    damaged_bytes: int = 0  # that it could not read, set aside in its `*.damaged` files
    last_error: str = ""  # why the newest call failed; empty when it did not
