"""One shard of a Kinesis event source mapping: a state machine without clock, threads or I/O.

Whoever drives it tells it what was read, what time it is and what came of its commands:

    machine.read(records, now)             what GetRecords brought
    machine.take(now)                      → commands that are due: Invoke, Discard, Checkpoint
    machine.result(lane, result, now)      what came of an Invoke
    machine.discarded(lane)                what was discarded is durable where it belongs
    machine.close()                        the shard has ended; nothing more will be read
    machine.wake(now)                      when to look again although nothing happened

A lane has at most one Invoke or Discard under way. The checkpoint only moves past records that are
settled: taken by the function, or discarded and `discarded`.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from infra.esm.answers import SETTLED, Meaning, Result, Undocumented, meaning
from infra.esm.events import PAYLOAD_MAX_BYTES, Record, fitting
from infra.esm.stream import Checkpoint, Command, Condition, Discard, Invoke, StreamRules

READ_AHEAD_BATCHES = 2  # for each lane: one under way, one to follow it


@dataclass
class _Work:
    """A batch on its way: what is left of it and what happened to it."""

    records: tuple[Record, ...]
    retries: int = 0
    failures: int = 0  # in a row, for the backoff only
    invocations: int = 0
    not_before: float = 0.0
    condition: Condition | None = None
    partial: bool = False
    last: Meaning | None = None


@dataclass
class _Lane:
    """What is processed one after the other. `buffer` holds records and when they were read."""

    buffer: deque[tuple[Record, float]] = field(default_factory=deque)
    work: deque[_Work] = field(default_factory=deque)
    busy: bool = False


class ShardMachine:
    """The mapping of one shard. `retention_seconds` is the stream's: older records are gone."""

    def __init__(
        self,
        rules: StreamRules,
        undocumented: Undocumented = SETTLED,
        retention_seconds: float = float("inf"),
    ) -> None:
        age = rules.maximum_record_age_seconds
        self._rules, self._undocumented = rules, undocumented
        self._age_seconds = min(float("inf") if age == -1 else age, retention_seconds)
        self._lanes = [_Lane() for _ in range(rules.parallelization_factor)]
        self._order: deque[Record] = deque()
        self._settled: set[int] = set()
        self._bytes = 0
        self._checkpoint: str | None = None
        self._closed = False

    def read(self, records: Iterable[Record], now: float) -> None:
        """Take what was read, in the shard's order."""
        for record in records:
            self._order.append(record)
            self._bytes += record.size_bytes
            self._lanes[lane_of(record.key, len(self._lanes))].buffer.append((record, now))

    def close(self) -> None:
        """The shard is closed and has been read to its end."""
        self._closed = True

    @property
    def ended(self) -> bool:
        """Whether a closed shard is done: its children may be read."""
        return self._closed and not self._order and self._checkpoint is None

    @property
    def hungry(self) -> bool:
        """Whether to read on. Lanes share the room: a lane that waits long stops the others."""
        ahead = READ_AHEAD_BATCHES * len(self._lanes)
        return (
            not self._closed
            and len(self._order) < ahead * self._rules.batch_size
            and self._bytes < ahead * PAYLOAD_MAX_BYTES
        )

    def take(self, now: float) -> list[Command]:
        """The commands that are due."""
        commands: list[Command] = []
        for number, lane in enumerate(self._lanes):
            commands.extend(self._next(number, lane, now))
        if self._checkpoint is not None:
            commands.insert(0, Checkpoint(self._checkpoint))
            self._checkpoint = None
        return commands

    def wake(self, now: float) -> float | None:
        """When `take` may have more to say although nothing has happened; None is never."""
        return min(filter(None, (self._wake(lane, now) for lane in self._lanes)), default=None)

    def result(self, lane: int, result: Result, now: float) -> Meaning:
        """Say what came of a lane's Invoke; what the mapping makes of it."""
        state = self._lanes[lane]
        work = state.work[0]
        identifiers = [record.identifier for record in work.records]
        meant = meaning(
            result, identifiers, "kinesis", self._undocumented, reports=self._rules.reports
        )
        state.busy = False
        work.last = meant
        work.invocations += meant.kind != "refused"
        work.failures += 1
        work.not_before = now + self._backoff(work.failures)
        match meant.kind:
            case "success":
                self._settle(work.records)
                state.work.popleft()
            case "partial":
                self._partial(state, work, set(meant.failed), now)
            case "failure":
                self._failure(state, work)
            case "refused":
                """Retried until its records are too old; MaximumRetryAttempts does not apply."""
        return meant

    def discarded(self, lane: int) -> None:
        """What the lane's Discard named is durable at the destination, or there is none."""
        state = self._lanes[lane]
        state.busy = False
        self._settle(state.work.popleft().records)

    def _next(self, number: int, lane: _Lane, now: float) -> Iterator[Command]:
        if lane.busy:
            return
        self._form(lane, now)
        if not lane.work:
            return
        if lane.work[0].condition is None:
            self._part_aged(lane, now)
        work = lane.work[0]
        if work.condition is not None:
            lane.busy = True
            yield Discard(number, work.records, work.condition, work.invocations, work.last)
        elif work.not_before <= now:
            lane.busy = True
            yield Invoke(number, work.records, work.invocations)

    def _form(self, lane: _Lane, now: float) -> None:
        """Cut a batch if it is full or its window is over; top up what is left of one."""
        if not lane.work:
            taken = self._fitting(lane)
            if self._due(lane, taken, now):
                lane.work.append(_Work(self._pop(lane, taken)))
            return
        rest = lane.work[0]
        alone = rest.partial and rest.condition is None and len(lane.work) == 1
        if alone and rest.not_before <= now and self._undocumented.rest_is_topped_up:
            taken = self._fitting(lane, rest.records)
            rest.records = (*rest.records, *self._pop(lane, taken))

    def _fitting(self, lane: _Lane, kept: Sequence[Record] = ()) -> int:
        """How many of the buffer's records fit behind those kept."""
        first = [*kept, *(lane.buffer[n][0] for n in range(self._reach(lane)))]
        taken = fitting(first, self._rules.batch_size, lambda record: record.size_bytes)
        return max(taken - len(kept), 0)

    def _reach(self, lane: _Lane) -> int:
        return min(len(lane.buffer), self._rules.batch_size + 1)

    def _due(self, lane: _Lane, taken: int, now: float) -> bool:
        full = 0 < taken < len(lane.buffer) or taken == self._rules.batch_size
        return full or (taken > 0 and now >= lane.buffer[0][1] + self._rules.window_seconds)

    def _pop(self, lane: _Lane, count: int) -> tuple[Record, ...]:
        return tuple(lane.buffer.popleft()[0] for _ in range(count))

    def _part_aged(self, lane: _Lane, now: float) -> None:
        """Put what is too old in front, as work of its own that is to be discarded."""
        work = lane.work[0]
        aged = tuple(r for r in work.records if r.arrival + self._age_seconds <= now)
        if not aged:
            return
        if self._undocumented.age_takes_whole_batch or len(aged) == len(work.records):
            work.condition = "RecordAgeExceeded"
            return
        young = tuple(r for r in work.records if r.arrival + self._age_seconds > now)
        lane.work[0] = replace(work, records=young)
        lane.work.appendleft(replace(work, records=aged, condition="RecordAgeExceeded"))

    def _wake(self, lane: _Lane, now: float) -> float | None:
        if lane.busy:
            return None
        if lane.work:
            work = lane.work[0]
            aged = min(record.arrival for record in work.records) + self._age_seconds
            return now if work.condition else max(now, min(work.not_before, aged))
        if not lane.buffer:
            return None
        due = self._due(lane, self._fitting(lane), now)
        return now if due else lane.buffer[0][1] + self._rules.window_seconds

    def _partial(self, lane: _Lane, work: _Work, failed: set[str], now: float) -> None:
        """Settle what is under the lowest number returned; the rest comes again."""
        first = min(int(identifier) for identifier in failed)
        self._settle([record for record in work.records if record.sequence < first])
        rest = tuple(record for record in work.records if record.sequence >= first)
        moved = len(rest) < len(work.records)
        work.records, work.partial = rest, True
        if moved:
            work.failures = 1
            work.not_before = now + self._backoff(1)
            if self._undocumented.progress_resets_retries:
                work.retries = 0
                return
        if self._rules.bisect and moved:
            return  # split at the number: it consumes no retry
        if self._rules.bisect and self._undocumented.bisect_halves_at_first and len(rest) > 1:
            self._halve(lane, work)
        else:
            self._retry(work)

    def _failure(self, lane: _Lane, work: _Work) -> None:
        if self._rules.bisect and len(work.records) > 1:
            self._halve(lane, work)
        else:
            self._retry(work)

    def _halve(self, lane: _Lane, work: _Work) -> None:
        """Two batches for one, the first first. It consumes no retry."""
        middle = (len(work.records) + 1) // 2
        retries = 0 if self._undocumented.split_resets_retries else work.retries
        halves = (work.records[:middle], work.records[middle:])
        lane.work.popleft()
        lane.work.extendleft(
            replace(work, records=half, retries=retries, partial=False) for half in reversed(halves)
        )

    def _retry(self, work: _Work) -> None:
        most = self._rules.maximum_retry_attempts
        if 0 <= most <= work.retries:
            work.condition = "RetryAttemptsExhausted"
        else:
            work.retries += 1

    def _settle(self, records: Iterable[Record]) -> None:
        for record in records:
            self._settled.add(record.sequence)
            self._bytes -= record.size_bytes
        while self._order and self._order[0].sequence in self._settled:
            last = self._order.popleft()
            self._settled.remove(last.sequence)
            self._checkpoint = last.identifier

    def _backoff(self, failures: int) -> float:
        doubled = self._rules.backoff_first_seconds * 2.0 ** min(failures - 1, 30)
        return min(doubled, self._rules.backoff_max_seconds)


def lane_of(key: str, lanes: int) -> int:
    """Which lane a partition key goes to: always the same one. AWS does not say which."""
    return zlib.crc32(key.encode("utf-8", "surrogatepass")) % lanes
