"""An SQS event source mapping: a state machine without clock, threads or I/O.

    machine.ask(now)                       how many messages to receive now; 0 is none
    machine.received(messages, now)        what ReceiveMessage brought
    machine.take(now)                      → commands that are due: Invoke, Delete, Drop
    machine.result(batch, result, now)     what came of an Invoke
    machine.wake(now)                      when to look again although nothing happened

Messages that are not deleted come back by themselves when their visibility timeout is over: the
queue counts the receives and moves what was received too often to the dead-letter queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from infra.esm.answers import SETTLED, Meaning, Result, Undocumented, meaning
from infra.esm.events import PAYLOAD_MAX_BYTES, Message, fitting

BATCH_MAX = 10_000  # Lambda: BatchSize of a standard queue [aws.md 1.3, B]
FIFO_BATCH_MAX = 10  # of a FIFO queue [aws.md 1.3, B]
WINDOW_MAX_SECONDS = 300  # Lambda: MaximumBatchingWindowInSeconds [aws.md 1.3, B]
SMALL_BATCH_MAX = 10  # a larger batch needs a window [aws.md 1.3, B]
CONCURRENCY_MIN, CONCURRENCY_MAX = 2, 1_000  # ScalingConfig.MaximumConcurrency [aws.md 0.7, B]
RECEIVE_MAX = 10  # SQS ReceiveMessage and DeleteMessageBatch: messages a call [aws.md 1.2, B]
SCALE_START = 5  # concurrent invocations to begin with [aws.md 0.7, D]
SCALE_MINUTE = 300  # more of them each minute [aws.md 0.7, D]
SCALE_MAX = 1_250  # where it ends without MaximumConcurrency [aws.md 0.7, D]
LATE_SECONDS = 30  # added when window and timeout outlast the visibility [aws.md 3.2, A]
SHRINK = 2  # AWS documents that concurrency shrinks on errors without reports, not by how much


@dataclass(frozen=True)
class QueueRules:
    """The settings of an SQS mapping, with AWS's defaults. Raises ValueError as AWS refuses.

    `visibility_seconds` is the queue's, `timeout_seconds` the function's.
    """

    batch_size: int = 10
    window_seconds: float = 0.0
    maximum_concurrency: int | None = None
    visibility_seconds: float = 30.0
    timeout_seconds: float = 3.0
    fifo: bool = False
    reports: bool = True  # ReportBatchItemFailures
    backoff_seconds: float = 1.0  # before a refused invocation is tried again; AWS documents none

    def __post_init__(self) -> None:
        most = self.maximum_concurrency
        batch_max = FIFO_BATCH_MAX if self.fifo else BATCH_MAX
        for must, what in (
            (1 <= self.batch_size <= batch_max, f"batch size is 1 to {batch_max}"),
            (0 <= self.window_seconds <= WINDOW_MAX_SECONDS, "window is 0 to 300 s"),
            (
                self.batch_size <= SMALL_BATCH_MAX or self.window_seconds > 0,
                "batch of more than 10 needs a window",
            ),
            (not self.fifo or self.window_seconds == 0, "FIFO queue has no window"),
            (
                most is None or CONCURRENCY_MIN <= most <= CONCURRENCY_MAX,
                "maximum concurrency is 2 to 1,000",
            ),
            (
                self.visibility_seconds >= self.timeout_seconds,
                "queue's visibility is at least the function's timeout",
            ),
        ):
            if not must:
                raise ValueError(f"an SQS mapping's {what}: {self}")

    @property
    def invisible_seconds(self) -> float:
        """How long what is received stays invisible: the queue's time, or what must fit in it."""
        needed = self.window_seconds + self.timeout_seconds
        return (
            self.visibility_seconds if needed <= self.visibility_seconds else needed + LATE_SECONDS
        )


@dataclass(frozen=True)
class Invoke:
    """Invoke the function with these messages."""

    batch: int
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Delete:
    """Delete these messages: the function took them."""

    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Drop:
    """Forget these messages: the function was not invoked before they became visible again.

    The receive counts: enough of them move to the dead-letter queue what nobody has read.
    """

    messages: tuple[Message, ...]


Command = Invoke | Delete | Drop


@dataclass
class _Batch:
    messages: tuple[Message, ...]
    until: float
    not_before: float = 0.0
    busy: bool = False


class QueueMachine:
    """The mapping of one queue. It gathers one batch at a time, for each invocation it may have.

    With MaximumConcurrency it receives no more than it may invoke. Without, it goes by its ramp
    alone and knows nothing of the function's reserved concurrency: it over-pulls.
    """

    def __init__(
        self, rules: QueueRules, undocumented: Undocumented = SETTLED, started: float = 0.0
    ) -> None:
        self._rules, self._undocumented = rules, undocumented
        self._ramp = (started, SCALE_START)
        self._gathered: deque[tuple[Message, float]] = deque()
        self._batches: dict[int, _Batch] = {}
        self._deletes: list[Message] = []
        self._count = 0

    def slots(self, now: float) -> int:
        """How many invocations there may be at once."""
        since, count = self._ramp
        grown = count + int((now - since) / 60 * SCALE_MINUTE)
        return min(grown, self._rules.maximum_concurrency or SCALE_MAX)

    @property
    def idle(self) -> bool:
        """Whether no message is in its hands."""
        return not (self._batches or self._gathered or self._deletes)

    def ask(self, now: float) -> int:
        """How many messages to receive now."""
        if len(self._batches) >= self.slots(now):
            return 0
        size = sum(message.size_bytes for message, _ in self._gathered)
        room = self._rules.batch_size - len(self._gathered)
        return min(RECEIVE_MAX, room) if room > 0 and size < PAYLOAD_MAX_BYTES else 0

    def received(self, messages: Iterable[Message], now: float) -> None:
        """Take what was received."""
        self._gathered.extend((message, now) for message in messages)

    def take(self, now: float, *, flush: bool = False) -> list[Command]:
        """The commands that are due. With `flush` no batch waits for its window or a retry."""
        commands: list[Command] = []
        self._form(now, flush=flush)
        if self._deletes:
            commands.append(Delete(tuple(self._deletes)))
            self._deletes = []
        for number, batch in list(self._batches.items()):
            if batch.busy:
                continue
            if batch.until <= now or (flush and batch.not_before > 0):
                commands.append(Drop(batch.messages))
                del self._batches[number]
            elif batch.not_before <= now:
                batch.busy = True
                commands.append(Invoke(number, batch.messages))
        return commands

    def result(self, number: int, result: Result, now: float) -> Meaning:
        """Say what came of an Invoke; what the mapping makes of it."""
        batch = self._batches[number]
        identifiers = [message.identifier for message in batch.messages]
        meant = meaning(result, identifiers, "sqs", self._undocumented, reports=self._rules.reports)
        if meant.kind == "refused":
            batch.busy = False
            batch.not_before = now + self._rules.backoff_seconds
            return meant
        del self._batches[number]
        if self._rules.fifo:
            self._let_go(batch.messages, meant)
        if meant.kind in {"success", "partial"}:
            failed = set(meant.failed)
            self._deletes += [m for m in batch.messages if m.identifier not in failed]
        elif not self._rules.reports:
            self._ramp = (now, max(1, self.slots(now) // SHRINK))
        return meant

    def wake(self, now: float) -> float | None:
        """When `take` or `ask` may have more to say although nothing has happened."""
        times = [
            max(now, min(batch.not_before, batch.until))
            for batch in self._batches.values()
            if not batch.busy
        ]
        if self._gathered and len(self._batches) < self.slots(now) and not self._behind():
            due = self._due(self._fitting(), now)
            times.append(now if due else self._gathered[0][1] + self._rules.window_seconds)
        if self._deletes:
            times.append(now)
        return min(times, default=None)

    def _form(self, now: float, *, flush: bool) -> None:
        """Cut batches as far as slots allow, of what has not become visible again meanwhile."""
        lives = self._rules.invisible_seconds
        while self._gathered and self._gathered[0][1] + lives <= now:
            self._gathered.popleft()
        while self._gathered and len(self._batches) < self.slots(now):
            taken = self._fitting()
            if self._behind() or not (flush or self._due(taken, now)):
                return
            until = self._gathered[0][1] + lives
            messages = tuple(self._gathered.popleft()[0] for _ in range(taken))
            self._count += 1
            self._batches[self._count] = _Batch(messages, until)

    def _behind(self) -> bool:
        """Whether a FIFO group of the next batch has messages in another one, cut for its bytes."""
        if not (self._rules.fifo and self._batches):
            return False
        busy = {message.group for batch in self._batches.values() for message in batch.messages}
        following = islice(self._gathered, self._fitting())
        return any(message.group in busy for message, _ in following)

    def _let_go(self, messages: tuple[Message, ...], meant: Meaning) -> None:
        """Forget what was gathered behind messages that come again: nothing may overtake them."""
        told = meant.kind in {"success", "partial"}
        failed = {m.group for m in messages if not told or m.identifier in meant.failed}
        kept = ((m, at) for m, at in self._gathered if m.group not in failed)
        self._gathered = deque(kept)

    def _fitting(self) -> int:
        messages = [message for message, _ in self._gathered]
        return fitting(messages, self._rules.batch_size, lambda message: message.size_bytes)

    def _due(self, taken: int, now: float) -> bool:
        full = taken < len(self._gathered) or taken == self._rules.batch_size
        return full or now >= self._gathered[0][1] + self._rules.window_seconds
