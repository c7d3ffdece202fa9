"""A shard's mapping that cuts its batches anyhow: any regrouping of what is not acknowledged.

AWS says how batches are cut after a failure, and a poller that is replaced cuts them anew. What is
right under every regrouping does not depend on either.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from infra.esm.answers import Meaning, Result, Undocumented, meaning
from infra.esm.events import Record
from infra.esm.stream import Checkpoint, Command, Invoke

PAUSE_SECONDS = 2.0


class Regrouping:
    """One lane; `chance()` in [0, 1) says how many of at most `most` records go together."""

    def __init__(self, most: int, undocumented: Undocumented, chance: Callable[[], float]) -> None:
        self._most, self._undocumented, self._chance = most, undocumented, chance
        self._left: deque[Record] = deque()
        self._sent: tuple[Record, ...] = ()
        self._closed = False
        self._not_before = 0.0
        self._checkpoint: str | None = None

    @property
    def ended(self) -> bool:
        return self._closed and not self._left and self._checkpoint is None

    @property
    def hungry(self) -> bool:
        return not self._closed

    def read(self, records: Iterable[Record], now: float) -> None:  # noqa: ARG002  as ShardMachine
        self._left.extend(records)

    def close(self) -> None:
        self._closed = True

    def take(self, now: float) -> list[Command]:
        commands: list[Command] = []
        if self._checkpoint is not None:
            commands.append(Checkpoint(self._checkpoint))
            self._checkpoint = None
        if self._left and not self._sent and self._not_before <= now:
            count = 1 + int(self._chance() * min(self._most, len(self._left)))
            self._sent = tuple(self._left)[:count]
            commands.append(Invoke(0, self._sent, 0))
        return commands

    def wake(self, now: float) -> float | None:
        return max(now, self._not_before) if self._left and not self._sent else None

    def result(self, lane: int, result: Result, now: float) -> Meaning:  # noqa: ARG002
        batch, self._sent = self._sent, ()
        names = [record.identifier for record in batch]
        meant = meaning(result, names, "kinesis", self._undocumented)
        done = 0
        if meant.kind == "success":
            done = len(batch)
        elif meant.kind == "partial":
            first = min(int(name) for name in meant.failed)
            done = sum(record.sequence < first for record in batch)
        if done < len(batch):
            self._not_before = now + PAUSE_SECONDS
        for _ in range(done):
            self._checkpoint = self._left.popleft().identifier
        return meant

    def discarded(self, lane: int) -> None:
        raise NotImplementedError(lane)
