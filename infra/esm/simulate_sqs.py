"""A handler behind an SQS mapping, in simulated time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from infra.esm.answers import SETTLED, Undocumented
from infra.esm.events import message, sqs_event
from infra.esm.queue import Delete, Drop, Invoke, QueueMachine, QueueRules
from infra.esm.simulate import ACCOUNT, EPOCH, REGION, Function, Invocation, Timeline, place
from infra.esm.simulated_queue import Held, SimulatedQueue, received

FOREVER_SECONDS = 15 * 86_400.0  # longer than a queue keeps anything


@dataclass(frozen=True)
class QueueOutcome:
    """What became of every message, by message id.

    `sent` = `delivered` + `dead_letters` + `lost` + `pending`, each in the order sent: deleted
    after success; moved by the redrive policy; kept no longer by the queue; still in it.
    `unread` are dead letters that no invocation ever had: over-pull. `overtaken` are messages of a
    FIFO group that were still there when a later one of their group was deleted.
    """

    invocations: tuple[Invocation, ...]
    sent: tuple[str, ...]
    delivered: tuple[str, ...]
    dead_letters: tuple[str, ...]
    lost: tuple[str, ...]
    pending: tuple[str, ...]
    unread: tuple[str, ...]
    overtaken: tuple[str, ...]
    dropped: int
    peak: int
    seconds: float

    @property
    def batches(self) -> list[list[str]]:
        """The message ids of each invocation that was not throttled."""
        return [list(i.identifiers) for i in self.invocations if i.fault != "throttle"]


@dataclass
class SqsSimulation:
    """A queue, a mapping and a function."""

    function: Function
    rules: QueueRules = field(default_factory=QueueRules)
    queue: SimulatedQueue = field(default_factory=SimulatedQueue)
    undocumented: Undocumented = SETTLED

    def __post_init__(self) -> None:
        self.timeline = Timeline()
        self._place = place(f"arn:aws:sqs:{REGION}:{ACCOUNT}:queue", self.function)
        self._machine = QueueMachine(self.rules, self.undocumented, EPOCH)
        self._invocations: list[Invocation] = []
        self._sent: list[str] = []
        self._deleted: set[str] = set()
        self._overtaken: list[str] = []
        self._dropped = self._peak = 0

    def send(self, body: str, group: str | None = None, at: float = 0.0) -> None:
        """Send a message, so many seconds after the start."""

        def event() -> None:
            self._sent.append(self.queue.send(body, self.timeline.now, group).identifier)

        self.at(at, event)

    def at(self, seconds: float, event: Callable[[], Any]) -> None:
        """Do something at a time."""
        self.timeline.at(EPOCH + seconds, event)

    def run(self, seconds: float = FOREVER_SECONDS) -> QueueOutcome:
        """Run until nothing is left to be done, at most so long."""
        until = EPOCH + seconds
        while True:
            self._turn()
            now = self.timeline.now
            moments = [self._machine.wake(now)]
            if self._machine.ask(now):
                moments.append(self.queue.next_visible(now))
            known = [moment for moment in moments if moment is not None]
            if not self.timeline.advance(min(known, default=None), until):
                return self._outcome()

    def _turn(self) -> None:
        now = self.timeline.now
        busy = True
        while busy:
            busy = False
            while most := self._machine.ask(now):
                held = self.queue.receive(most, now, self.rules.invisible_seconds)
                if not held:
                    break
                self._machine.received((message(received(h), self._place) for h in held), now)
            for command in self._machine.take(now):
                busy = True
                match command:
                    case Invoke():
                        self._invoke(command)
                    case Delete(messages):
                        self._delete([(m.identifier, m.receipt) for m in messages])
                    case Drop(messages):
                        self._dropped += len(messages)

    def _invoke(self, command: Invoke) -> None:
        fault, seconds, result = self.function.invoke(sqs_event(command.messages))
        answer, started = self.function.answer, self.timeline.now
        self.function.running += 1
        self._peak = max(self._peak, self.function.running)

        def end() -> None:
            self.function.running -= 1
            meant = self._machine.result(command.batch, result, self.timeline.now)
            identifiers = tuple(m.identifier for m in command.messages)
            groups = tuple(m.group for m in command.messages)
            self._invocations.append(
                Invocation(
                    started - EPOCH, seconds, "queue", identifiers, groups, fault, answer, meant
                )
            )

        if fault == "throttle":
            end()
        else:
            self.timeline.at(started + seconds, end)

    def _delete(self, messages: Iterable[tuple[str, str]]) -> None:
        before = {held.identifier: held for held in self.queue.messages}
        self.queue.delete([receipt for _, receipt in messages])
        left = {held.identifier for held in self.queue.messages}
        gone = [held for name, held in before.items() if name not in left]
        self._deleted.update(held.identifier for held in gone)
        if self.queue.fifo:
            self._overtaken += self._overtaken_by(gone)

    def _overtaken_by(self, gone: Iterable[Held]) -> list[str]:
        last = {held.group: self._sent.index(held.identifier) for held in gone}
        return [
            held.identifier
            for held in self.queue.messages
            if self._sent.index(held.identifier) < last.get(held.group, -1)
        ]

    def _outcome(self) -> QueueOutcome:
        dead = {held.identifier for held in self.queue.dead_letters}
        lost = {held.identifier for held in self.queue.expired}
        tried = {i for run in self._invocations if run.took_place for i in run.identifiers}

        def ordered(chosen: set[str]) -> tuple[str, ...]:
            return tuple(identifier for identifier in self._sent if identifier in chosen)

        return QueueOutcome(
            tuple(self._invocations),
            tuple(self._sent),
            ordered(self._deleted),
            ordered(dead),
            ordered(lost),
            ordered(set(self._sent) - self._deleted - dead - lost),
            ordered(dead - tried),
            tuple(dict.fromkeys(self._overtaken)),
            self._dropped,
            self._peak,
            self.timeline.now - EPOCH,
        )
