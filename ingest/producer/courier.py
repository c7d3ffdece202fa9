"""Batches of entries within a destination's limits, and again what failed of them, no more."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ingest.producer.destination import Destination
from ingest.producer.messages import Answer, Entry, Message, Position, Refusal
from sinks.errors import Refused, SinkError, translated

BACKOFF_FIRST_SECONDS = 0.05
BACKOFF_MAX_SECONDS = 2.0  # while some of a request is taken
BACKOFF_AWAY_MAX_SECONDS = 30.0  # while nothing is
KEYS_REMEMBERED = 10_000  # and their groups, for which some are hashed
DOUBLINGS_MAX = 16  # of a pause, which has long reached its maximum

INVALID = frozenset(
    {
        "AWS.SimpleQueueService.BatchRequestTooLong",
        "AWS.SimpleQueueService.InvalidMessageContents",
        "BatchRequestTooLong",
        "InvalidArgumentException",
        "InvalidMessageContents",
        "InvalidParameterValue",
        "ValidationException",
    }
)
"""Of a whole request that is refused for what it holds, not for the weather or the setup."""


@dataclass(frozen=True)
class Settled:
    """What became of a request's entries; those that failed go again."""

    taken: list[tuple[Entry, Position]]
    refused: list[tuple[Entry, Refusal]]
    failed: list[tuple[Entry, Refusal]]


class Courier:
    """Messages on their way to a destination: waiting, in a request, or to go again.

    It makes the requests, one at a time; who sends them is for others, and what time it is. What
    failed goes again after full jitter, longer each time, while the rest goes on. A request of
    which nothing was taken holds up everything: the network is away, or the setup is wrong.
    """

    def __init__(self, destination: Destination, uniform: Callable[[float, float], float]) -> None:
        self.messages = 0  # waiting for their first request
        self.size = 0  # their bytes
        self._destination = destination
        self._uniform = uniform
        self._group = lru_cache(KEYS_REMEMBERED)(destination.group)
        self._waiting: dict[str, deque[Message]] = {}
        self._again: list[Entry] = []
        self._away = 0  # requests in a row of which nothing was taken
        self._not_before = 0.0

    def add(self, message: Message) -> None:
        group = self._group(message.key)
        waiting = self._waiting.get(group)
        if waiting is None:
            waiting = self._waiting[group] = deque()
        waiting.append(message)
        self.messages += 1
        self.size += len(message.key) + len(message.data)

    @property
    def full(self) -> bool:
        """Whether a request need not wait for more messages."""
        return self._destination.full(self.messages, self.size)

    def due(self, waiting_at: float) -> float | None:
        """When the next request is due, if messages are to wait until `waiting_at` for others."""
        times = [entry.not_before for entry in self._again]
        if self._waiting and self._unblocked():
            times.append(waiting_at)
        return max(min(times), self._not_before) if times else None

    def _unblocked(self) -> bool:
        """Whether some messages do not wait behind one that failed."""
        if not (self._again and self._destination.in_order):
            return True
        busy = {entry.group for entry in self._again}
        return any(group not in busy for group in self._waiting)

    def next_batch(self, now: float) -> list[Entry]:
        """Entries for one request, first those that failed; empty when nothing is due."""
        for entry in self._again:
            if entry.alone and entry.not_before <= now:
                self._again.remove(entry)
                return [entry]
        batch: list[Entry] = []
        room = self._take_again(batch, now)
        busy = {entry.group for entry in (*batch, *self._again)}
        for group in list(self._waiting):
            if self._destination.in_order and group in busy:
                continue
            left = self._take_waiting(batch, group, room)
            if left is None:
                break
            room = left
        return batch

    def settle(self, batch: Sequence[Entry], answers: Sequence[Answer], now: float) -> Settled:
        """Take note of a request's answers, one for each entry."""
        settled = Settled([], [], [])
        for entry, answer in zip(batch, answers, strict=True):
            entry.attempts += 1
            if isinstance(answer, Position):
                settled.taken.append((entry, answer))
            elif answer.final and not (answer.whole and len(batch) > 1):
                settled.refused.append((entry, answer))
            else:
                entry.alone = answer.final
                entry.not_before = now + self._pause(entry.attempts, BACKOFF_MAX_SECONDS)
                settled.failed.append((entry, answer))
        self._again = [entry for entry, _ in settled.failed] + self._again
        self._away = 0 if settled.taken or settled.refused else self._away + 1
        if self._away:
            self._not_before = now + self._pause(self._away, BACKOFF_AWAY_MAX_SECONDS)
        return settled

    def _pause(self, times: int, most: float) -> float:
        doubled = BACKOFF_FIRST_SECONDS * 2 ** min(times - 1, DOUBLINGS_MAX)
        return self._uniform(0, min(doubled, most))

    def retry(self, entry: Entry, now: float) -> None:
        """Let an entry that was refused go again, alone, when others have had their turn."""
        entry.alone = True
        entry.not_before = now + self._pause(entry.attempts, BACKOFF_AWAY_MAX_SECONDS)
        self._again.append(entry)

    def _take_again(self, batch: list[Entry], now: float) -> int:
        room = self._destination.call_bytes
        left: list[Entry] = []
        busy: set[str] = set()
        for entry in self._again:
            blocked = self._destination.in_order and entry.group in busy
            fits = len(batch) < self._destination.entries_max and entry.size <= room
            if blocked or entry.alone or entry.not_before > now or not fits:
                left.append(entry)
            else:
                batch.append(entry)
                room -= entry.size
            busy.add(entry.group)
        self._again = left
        return room

    def _take_waiting(self, batch: list[Entry], group: str, room: int) -> int | None:
        """Entries of a group, which is then the last in line; None when the request is full."""
        waiting = self._waiting.pop(group)
        before = len(batch)
        while waiting and len(batch) < self._destination.entries_max:
            entry = self._destination.pack(group, waiting, room)
            if entry is None:
                break
            batch.append(entry)
            room -= entry.size
            self.messages -= len(entry.messages)
            self.size -= sum(len(m.key) + len(m.data) for m in entry.messages)
            if self._destination.in_order:
                break
        if not waiting:
            return room
        self._waiting[group] = waiting
        return room if self._destination.in_order and len(batch) > before else None


def attempt(destination: Destination, batch: Sequence[Entry]) -> list[Answer]:
    """Send a request. Whatever its client raises is an answer too, the same for each entry."""
    try:
        with translated(f"send to {destination.name}"):
            answers = destination.send(batch)
        if len(answers) == len(batch):
            return answers
        refusal = Refusal("NoAnswer", f"{len(answers)} answers to {len(batch)} entries", whole=True)
    except SinkError as error:
        refusal = Refusal(error.reason, str(error), whole=True)
    except Refused as error:
        refusal = Refusal(error.code, str(error), final=error.code in INVALID, whole=True)
    except Exception as error:  # noqa: BLE001  what nobody thought of must not end the sending
        refusal = Refusal(type(error).__name__, str(error), whole=True)
    return [refusal] * len(batch)
