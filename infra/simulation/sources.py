"""Streams and queues with their event source mappings, which invoke functions in simulated time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from infra.doubles.s3 import S3, Stored
from infra.esm.answers import Meaning, Result, Undocumented
from infra.esm.events import Place, Record, kinesis_event, message, sqs_event
from infra.esm.on_failure import document, object_key
from infra.esm.queue import Delete, Drop, QueueMachine, QueueRules
from infra.esm.queue import Invoke as InvokeQueue
from infra.esm.reshard import Lineage
from infra.esm.simulated_queue import Held, SimulatedQueue, received
from infra.esm.simulated_stream import SimulatedStream
from infra.esm.stream import Checkpoint, Command, Discard, Invoke, StreamRules
from infra.simulation.lambdas import Lambdas
from infra.simulation.weather import Weather

POLL_SECONDS = 1.0
GET_RECORDS_MAX = 1_000

Position = tuple[str, str, str]
"""Stream, shard and sequence number; for SQS the queue, nothing and the message id."""


class Ears(Protocol):
    """Who is told what the mappings did."""

    def received(self, position: Position, body: bytes, arrival_micros: int) -> None:
        """Lambda was given this record."""

    def settled(self, position: Position) -> None:
        """The mapping is done with it: the function's answer took it."""

    def parked(self, position: Position, arrival_micros: int) -> None:
        """It was given up, to the mapping's on-failure destination or the queue's dead letters."""


class Machine(Protocol):
    """What a shard's mapping does: `ShardMachine`, or `Regrouping`."""

    @property
    def ended(self) -> bool: ...
    @property
    def hungry(self) -> bool: ...
    def read(self, records: Iterable[Record], now: float) -> None: ...
    def close(self) -> None: ...
    def take(self, now: float) -> Sequence[Command]: ...
    def wake(self, now: float) -> float | None: ...
    def result(self, lane: int, result: Result, now: float) -> Meaning: ...
    def discarded(self, lane: int) -> None: ...


@dataclass(eq=False)
class _Reader:
    shard: str
    machine: Machine
    after: int = 0
    poll_at: float = 0.0
    wakes_at: float = float("inf")


@dataclass
class StreamSource:
    """A stream and its mapping. `make` makes a shard's machine."""

    name: str
    function: str
    stream: SimulatedStream
    rules: StreamRules
    lambdas: Lambdas
    weather: Weather
    bucket: tuple[S3, str]
    ears: Ears
    make: Callable[[], Machine]
    prefix: str = "on-failure/"
    checkpoints: dict[str, int] = field(default_factory=dict)
    enabled: bool = True

    def __post_init__(self) -> None:
        self._scheduler = self.weather.scheduler
        self._lineage = Lineage()
        self._readers: dict[str, _Reader] = {}
        self.arn = f"arn:aws:kinesis:us-east-1:123456789012:stream/{self.name}"

    def put(self, key: str, data: bytes) -> Position:
        """Put a record; the mapping finds it when it polls."""
        made = self.stream.put(key, data, self._scheduler.now)
        self.turn()
        shard = next(s for s in self.stream.shards.values() if s.records[-1:] == [made])
        return (self.name, shard.name, made.identifier)

    def turn(self) -> None:
        """Go as far as can be gone now."""
        if not self.enabled:
            return
        self._lineage.learn({name: s.parents for name, s in self.stream.shards.items()})
        for shard in self._lineage.ready():
            self._readers[shard] = _Reader(shard, self.make())
        for reader in list(self._readers.values()):
            self._turn(reader)
        if done := [r for r in self._readers.values() if r.machine.ended]:
            for reader in done:
                self._lineage.end(reader.shard)
                del self._readers[reader.shard]
            self.turn()

    def restart(self) -> None:
        """Replace every poller: it reads again from its checkpoint, whatever is under way."""
        for shard in list(self._readers):
            after = self.checkpoints.get(shard, 0)
            self._readers[shard] = _Reader(shard, self.make(), after)
        self.turn()

    def switch(self, on: bool) -> None:  # noqa: FBT001  a switch
        """Enable or disable the mapping: whoever polled is gone, and what it waited for."""
        self.enabled = on
        self.restart()

    @property
    def drained(self) -> bool:
        """Whether every record is settled."""
        return all(
            not shard.records or self.checkpoints.get(name, 0) >= shard.records[-1].sequence
            for name, shard in self.stream.shards.items()
        )

    def _turn(self, reader: _Reader) -> None:
        now, machine = self._scheduler.now, reader.machine
        if machine.hungry and reader.poll_at <= now:
            records, ends = self.stream.read(reader.shard, reader.after, GET_RECORDS_MAX, now)
            machine.read(records, now)
            if records:
                reader.after = records[-1].sequence
                reader.poll_at = now + POLL_SECONDS
            if ends:
                machine.close()
        while commands := machine.take(now):
            for command in commands:
                match command:
                    case Invoke():
                        self._invoke(reader, command)
                    case Discard():
                        self._discard(reader, command)
                    case Checkpoint(identifier):
                        self.checkpoints[reader.shard] = int(identifier)
        self._sleep(reader)

    def _sleep(self, reader: _Reader) -> None:
        """Come back when the machine wakes, or may poll for what has not been read."""
        now = self._scheduler.now
        moments = [reader.machine.wake(now)]
        shard = self.stream.shards[reader.shard]
        unread = bool(shard.records) and shard.records[-1].sequence > reader.after
        if reader.machine.hungry and (unread or shard.closed):
            moments.append(reader.poll_at)
        wake = min((m for m in moments if m is not None), default=float("inf"))
        if wake < reader.wakes_at or reader.wakes_at <= now:
            reader.wakes_at = wake
            if wake < float("inf"):
                self._scheduler.at(wake, lambda: self._woken(reader, wake))

    def _woken(self, reader: _Reader, moment: float) -> None:
        if reader.wakes_at == moment and self._readers.get(reader.shard) is reader:
            reader.wakes_at = float("inf")
            self.turn()

    def _place(self, shard: str) -> Place:
        arn = f"arn:aws:lambda:us-east-1:123456789012:function:{self.function}"
        return Place(self.arn, arn, "us-east-1", "arn:aws:iam::123456789012:role/r", shard)

    def _invoke(self, reader: _Reader, command: Invoke) -> None:
        records = command.records
        for record in records:
            position = (self.name, reader.shard, record.identifier)
            self.ears.received(position, record.data, round(record.arrival * 1_000) * 1_000)
        event = kinesis_event(records, self._place(reader.shard))
        self.lambdas.deliver(
            self.function, event, lambda result: self._answered(reader, command, result)
        )

    def _answered(self, reader: _Reader, command: Invoke, result: Result) -> None:
        if self._readers.get(reader.shard) is not reader:
            return  # the poller that asked is gone
        meant = reader.machine.result(command.lane, result, self._scheduler.now)
        self.weather.note(f"answer {reader.shard} {meant.kind} {meant.failed} {meant.reason}")
        first = min(map(int, meant.failed), default=command.records[-1].sequence + 1)
        if meant.kind in {"success", "partial"}:
            for record in command.records:
                if record.sequence < first:
                    self.ears.settled((self.name, reader.shard, record.identifier))
        self.turn()

    def _discard(self, reader: _Reader, command: Discard) -> None:
        now = self._scheduler.now
        place = self._place(reader.shard)
        unique = f"{reader.shard}-{command.records[0].identifier}"
        key = self.prefix + object_key("mapping", reader.shard, now, unique)
        told = document(command, place, now, unique, payload=True)
        client, bucket = self.bucket
        client.buckets[bucket][key] = Stored(json.dumps(told).encode(), now)
        for record in command.records:
            arrival = round(record.arrival * 1_000) * 1_000
            self.ears.parked((self.name, reader.shard, record.identifier), arrival)
        reader.machine.discarded(command.lane)


class NoticedQueue(SimulatedQueue):
    """A queue whose mapping is told when there may be something to receive."""

    notice: Callable[[], None] | None = None

    def send(self, body: str, now: float, group: str | None = None) -> Held:
        held = super().send(body, now, group)
        if self.notice is not None:
            self.notice()
        return held

    def change_visibility(self, receipt: str, seconds: float, now: float) -> None:
        super().change_visibility(receipt, seconds, now)
        if self.notice is not None:
            self.notice()


@dataclass
class QueueSource:
    """A queue and its mapping."""

    name: str
    function: str
    queue: NoticedQueue
    rules: QueueRules
    lambdas: Lambdas
    weather: Weather
    ears: Ears
    undocumented: Undocumented

    def __post_init__(self) -> None:
        self._scheduler = self.weather.scheduler
        self.enabled = True
        self.arn = f"arn:aws:sqs:us-east-1:123456789012:{self.name}"
        arn = f"arn:aws:lambda:us-east-1:123456789012:function:{self.function}"
        self._place = Place(self.arn, arn, "us-east-1", "arn:aws:iam::123456789012:role/r")
        self._wakes_at = float("inf")
        self.queue.notice = lambda: self._scheduler.at(self._scheduler.now, self.turn)
        self._make()

    def put(self, body: bytes, group: str) -> Position:
        """Send a message; only in a FIFO queue its group counts."""
        of = group if self.queue.fifo else None
        held = self.queue.send(body.decode(), self._scheduler.now, of)
        return (self.name, "", held.identifier)

    def restart(self) -> None:
        """Replace the poller: what it held becomes visible again in its time."""
        self._make()
        self.turn()

    def switch(self, on: bool) -> None:  # noqa: FBT001  a switch
        """Enable or disable the mapping."""
        self.enabled = on
        self.restart()

    @property
    def drained(self) -> bool:
        return not self.queue.messages

    def turn(self) -> None:
        """Go as far as can be gone now."""
        now, busy = self._scheduler.now, self.enabled
        while busy:
            busy = False
            while most := self._machine.ask(now):
                held = self.queue.receive(most, now, self.rules.invisible_seconds)
                if not held:
                    break
                self._machine.received([message(received(h), self._place) for h in held], now)
            for command in self._machine.take(now):
                busy = True
                match command:
                    case InvokeQueue():
                        self._invoke(command)
                    case Delete(messages):
                        self.queue.delete([m.receipt for m in messages])
                    case Drop():
                        """They become visible again by themselves."""
        for dead in self.queue.dead_letters:
            self.ears.parked((self.name, "", dead.identifier), round(dead.sent_at * 1_000) * 1_000)
        if self.enabled:
            self._sleep()

    def _make(self) -> None:
        self._machine = QueueMachine(self.rules, self.undocumented, self._scheduler.now)

    def _sleep(self) -> None:
        now = self._scheduler.now
        moments = [self._machine.wake(now)]
        if self._machine.ask(now):
            moments.append(self.queue.next_visible(now))
        wake = min((m for m in moments if m is not None), default=float("inf"))
        if wake < self._wakes_at or self._wakes_at <= now:
            self._wakes_at = wake
            if wake < float("inf"):
                self._scheduler.at(wake, partial(self._woken, wake))

    def _woken(self, moment: float) -> None:
        if self._wakes_at == moment:
            self._wakes_at = float("inf")
            self.turn()

    def _invoke(self, command: InvokeQueue) -> None:
        machine = self._machine
        for sent in command.messages:
            arrival = int(sent.entry["attributes"]["SentTimestamp"]) * 1_000
            self.ears.received(
                (self.name, "", sent.identifier), sent.entry["body"].encode(), arrival
            )

        def done(result: Result) -> None:
            if machine is not self._machine:
                return  # the poller that asked is gone
            meant = machine.result(command.batch, result, self._scheduler.now)
            self.weather.note(f"answer {self.name} {meant.kind} {meant.failed} {meant.reason}")
            if meant.kind in {"success", "partial"}:
                for sent in command.messages:
                    if sent.identifier not in meant.failed:
                        self.ears.settled((self.name, "", sent.identifier))
            self.turn()

        self.lambdas.deliver(self.function, sqs_event(command.messages), done)
