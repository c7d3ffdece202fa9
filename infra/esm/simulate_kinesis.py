"""A handler behind a Kinesis mapping, in simulated time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.esm.answers import SETTLED, Undocumented
from infra.esm.events import Record, kinesis_event
from infra.esm.on_failure import document
from infra.esm.reshard import Lineage
from infra.esm.shard import ShardMachine
from infra.esm.simulate import ACCOUNT, EPOCH, REGION, Function, Invocation, Timeline, place
from infra.esm.simulated_stream import SimulatedStream
from infra.esm.stream import Checkpoint, Discard, Invoke, StreamRules

POLL_SECONDS = 1.0  # Lambda's base rate of polling a shard [aws.md 1.3, A,D]
GET_RECORDS_MAX = 10_000  # Kinesis GetRecords: records a call [aws.md 1.1, B]
FOREVER_SECONDS = 14 * 86_400.0  # longer than any age limit: what is pending then stays so


@dataclass(frozen=True)
class StreamOutcome:
    """What became of every record, by sequence number.

    `sent` = `delivered` + `parked` + `lost` + `pending`, each in the order sent: taken by the
    function; discarded, with a document in `on_failure`; discarded or expired without one; still
    in the stream when time was over.
    """

    invocations: tuple[Invocation, ...]
    sent: tuple[str, ...]
    delivered: tuple[str, ...]
    parked: tuple[str, ...]
    lost: tuple[str, ...]
    pending: tuple[str, ...]
    on_failure: tuple[dict[str, Any], ...]
    checkpoints: Mapping[str, str]
    ended: tuple[str, ...]
    seconds: float

    @property
    def checkpoint(self) -> str:
        """The checkpoint of a stream with one shard; "" before the first."""
        (only,) = self.checkpoints.values() or ("",)
        return only

    @property
    def batches(self) -> list[list[str]]:
        """The sequence numbers of each invocation."""
        return [list(invocation.identifiers) for invocation in self.invocations]

    @property
    def out_of_order(self) -> list[str]:
        """Records whose first attempt came after that of a later one with their partition key."""
        last: dict[str | None, int] = {}
        seen: set[str] = set()
        late = []
        for invocation in self.invocations:
            for key, identifier in zip(invocation.keys, invocation.identifiers, strict=True):
                if identifier not in seen and int(identifier) < last.get(key, 0):
                    late.append(identifier)
                seen.add(identifier)
                last[key] = max(last.get(key, 0), int(identifier))
        return late


@dataclass
class _Reader:
    """A shard that is being read: its machine, how far it was read, when it may be polled next."""

    name: str
    machine: ShardMachine
    after: int = 0
    poll_at: float = EPOCH


@dataclass
class KinesisSimulation:
    """A stream, a mapping and a function. `destination` is where discarded batches go.

    With "s3" a document carries its payload; with "sqs" or "sns" it does not; None keeps nothing.
    """

    function: Function
    rules: StreamRules = field(default_factory=StreamRules)
    stream: SimulatedStream = field(default_factory=SimulatedStream)
    destination: str | None = None
    undocumented: Undocumented = SETTLED

    def __post_init__(self) -> None:
        self.timeline = Timeline()
        self._arn = f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/stream"
        self._lineage = Lineage()
        self._readers: dict[str, _Reader] = {}
        self._invocations: list[Invocation] = []
        self._sent: list[Record] = []
        self._taken: set[str] = set()
        self._parked: set[str] = set()
        self._dropped: set[str] = set()
        self._documents: list[dict[str, Any]] = []
        self._checkpoints: dict[str, str] = {}
        self._ended: list[str] = []

    def put(self, key: str, data: bytes, at: float = 0.0) -> None:
        """Put a record, so many seconds after the start."""
        self.at(at, lambda: self._sent.append(self.stream.put(key, data, self.timeline.now)))

    def at(self, seconds: float, event: Callable[[], Any]) -> None:
        """Do something at a time: split a shard, mend the world."""
        self.timeline.at(EPOCH + seconds, event)

    def run(self, seconds: float = FOREVER_SECONDS) -> StreamOutcome:
        """Run until nothing is left to be done, at most so long."""
        until = EPOCH + seconds
        going = True
        while going:
            self._begin()
            for reader in list(self._readers.values()):
                self._turn(reader)
            moments = [moment for r in self._readers.values() for moment in self._wakes(r)]
            if self._lineage_moved():
                continue
            going = self.timeline.advance(min(moments, default=None), until)
        return self._outcome()

    def _begin(self) -> None:
        self._lineage.learn({name: s.parents for name, s in self.stream.shards.items()})
        for name in self._lineage.ready():
            machine = ShardMachine(self.rules, self.undocumented, self.stream.retention_seconds)
            self._readers[name] = _Reader(name, machine)

    def _lineage_moved(self) -> bool:
        done = [reader for reader in self._readers.values() if reader.machine.ended]
        for reader in done:
            self._lineage.end(reader.name)
            self._ended.append(reader.name)
            del self._readers[reader.name]
        return bool(done)

    def _turn(self, reader: _Reader) -> None:
        now, machine = self.timeline.now, reader.machine
        if machine.hungry and reader.poll_at <= now:
            records, ends = self.stream.read(reader.name, reader.after, GET_RECORDS_MAX, now)
            machine.read(records, now)
            if records:
                reader.after = records[-1].sequence
                reader.poll_at = now + (0 if len(records) == GET_RECORDS_MAX else POLL_SECONDS)
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
                        self._checkpoints[reader.name] = identifier

    def _wakes(self, reader: _Reader) -> list[float]:
        """When its machine wakes, and when it may be polled for what has not been read."""
        wake = reader.machine.wake(self.timeline.now)
        shard = self.stream.shards[reader.name]
        unread = bool(shard.records) and shard.records[-1].sequence > reader.after
        poll = [reader.poll_at] if reader.machine.hungry and (unread or shard.closed) else []
        return [*poll, *([wake] if wake is not None else [])]

    def _invoke(self, reader: _Reader, command: Invoke) -> None:
        where = place(self._arn, self.function, reader.name)
        fault, seconds, result = self.function.invoke(kinesis_event(command.records, where))
        answer, started = self.function.answer, self.timeline.now
        self.function.running += 1

        def end() -> None:
            self.function.running -= 1
            meant = reader.machine.result(command.lane, result, self.timeline.now)
            identifiers = tuple(record.identifier for record in command.records)
            keys = tuple(record.key for record in command.records)
            self._invocations[number] = Invocation(
                started - EPOCH, seconds, reader.name, identifiers, keys, fault, answer, meant
            )
            first = min(map(int, meant.failed), default=command.records[-1].sequence + 1)
            if meant.kind in {"success", "partial"}:
                self._taken.update(i for i in identifiers if int(i) < first)

        number = len(self._invocations)
        self._invocations.append(None)  # type: ignore[arg-type]  # in its place when it has ended
        self.timeline.at(started + seconds, end)

    def _discard(self, reader: _Reader, command: Discard) -> None:
        named = {record.identifier for record in command.records}
        if self.destination is None:
            self._dropped |= named
        else:
            self._parked |= named
            where = place(self._arn, self.function, reader.name)
            request = f"request-{self.function.count}"
            payload = self.destination == "s3"
            now = self.timeline.now
            self._documents.append(document(command, where, now, request, payload=payload))
        reader.machine.discarded(command.lane)

    def _outcome(self) -> StreamOutcome:
        now = self.timeline.now
        sent = [record.identifier for record in self._sent]
        done = self._taken | self._parked
        gone = {
            record.identifier
            for record in self._sent
            if record.arrival + self.stream.retention_seconds <= now
        }
        lost = (self._dropped | gone) - done

        def ordered(chosen: Iterable[str]) -> tuple[str, ...]:
            members = set(chosen)
            return tuple(identifier for identifier in sent if identifier in members)

        return StreamOutcome(
            tuple(filter(None, self._invocations)),
            tuple(sent),
            ordered(self._taken),
            ordered(self._parked),
            ordered(lost),
            ordered(set(sent) - done - lost),
            tuple(self._documents),
            dict(self._checkpoints),
            tuple(self._ended),
            now - EPOCH,
        )
