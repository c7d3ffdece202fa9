"""Whatever the faults: what was accepted is acknowledged in the end or still in the spill."""

from __future__ import annotations

import logging
import math
import random
import shutil
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.doubles.kinesis import Kinesis
from infra.doubles.sqs import Sqs
from infra.doubles.world import Call, happening, refused
from infra.esm.simulated_queue import SimulatedQueue
from infra.esm.simulated_stream import SimulatedStream
from ingest.producer import Full, Queue, Spill, Stream, Unsendable
from ingest.producer.courier import attempt
from ingest.producer.messages import acknowledged
from ingest.producer.outbox import Outbox
from ingest.producer.spill import Log
from tests.test_spill import died
from transform.kpl import is_aggregate
from transform.kpl_reader import deaggregate

KEYS = ("a", "b", "c")
URL = "https://sqs/1/"
FAULTS = ("calm", "calm", "partial", "partial", "throttle", "error", "timeout", "lost", "away")


@pytest.fixture(autouse=True, scope="module")
def _quiet():
    """Thousands of storms need not be told."""
    logger = logging.getLogger("ingest.producer")
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(logging.NOTSET)


@dataclass
class Weather:
    """A world whose next effect has the fault that it is told."""

    now: float = 0.0
    fault: str = "calm"
    rolls: random.Random = field(default_factory=random.Random)

    def clock(self) -> float:
        return self.now

    def effect(self, call: Call, act: Any) -> Any:
        if self.fault == "away":
            raise EndpointConnectionError(endpoint_url="https://away")
        known = self.fault not in {"calm", "partial"}
        return happening(self.fault if known else None, call, act)

    def takes(self, _call: Call, _key: tuple[str, str]) -> bool:
        return self.fault != "partial" or self.rolls.random() < 0.5


class Halves(Sqs):
    """A queue that takes only some of a batch when the weather says so."""

    def send_message_batch(self, *, QueueUrl: str, Entries: Any) -> Any:  # noqa: N803  as boto3
        taken = [e for e in Entries if self.world.takes(Call("sqs", ""), ("", e["Id"]))]
        left = [
            {"Id": e["Id"], "Code": "InternalError", "SenderFault": False}
            for e in Entries
            if e not in taken
        ]
        done = super().send_message_batch(QueueUrl=QueueUrl, Entries=taken) if taken else {}
        return {**done, "Failed": left} if left else done


@dataclass
class Case:
    """A destination of one kind and what it has been given."""

    kind: str
    weather: Weather = field(default_factory=Weather)

    def __post_init__(self) -> None:
        self.stream = SimulatedStream(shards=4)
        self.queue = SimulatedQueue(fifo=self.kind == "fifo")
        url = URL + ("q.fifo" if self.kind == "fifo" else "q")
        kinesis = Kinesis(self.weather, {"s": self.stream})
        self.destination: Any = {
            "plain": lambda: Stream(kinesis, "s", aggregate=False),
            "plain in order": lambda: Stream(kinesis, "s", aggregate=False, ordered=True),
            "kpl": lambda: Stream(kinesis, "s", lanes=8, aggregate_bytes=2_000),
            "kpl together": lambda: Stream(kinesis, "s", together="g", aggregate_bytes=2_000),
            "kpl out of order": lambda: Stream(
                kinesis, "s", aggregate_bytes=2_000, ordered=False, call_bytes=2**20
            ),
            "queue": lambda: Queue(Halves(self.weather, {url: self.queue}), url),
            "fifo": lambda: Queue(Halves(self.weather, {url: self.queue}), url),
        }[self.kind]()

    def by_position(self) -> dict[tuple[str, str], list[bytes]]:
        if self.kind in {"queue", "fifo"}:
            return {("", m.identifier): [m.body.encode()] for m in self.queue.messages}
        return {
            (shard.name, str(record.sequence)): opened(record.data)
            for shard in self.stream.shards.values()
            for record in shard.records
        }

    def received(self) -> list[bytes]:
        return [body for bodies in self.by_position().values() for body in bodies]


KINDS = ("plain", "plain in order", "kpl", "kpl together", "kpl out of order", "queue", "fifo")
IN_ORDER = {"plain in order", "kpl", "kpl together", "fifo"}


def opened(data: bytes) -> list[bytes]:
    return [body for _, body in deaggregate(data)] if is_aggregate(data) else [data]


@dataclass
class Run:
    """An outbox driven by hand, through deaths and restarts; it checks as it goes."""

    case: Case
    spill: Spill | None
    seed: int
    accepted: list[tuple[str, bytes]] = field(default_factory=list)
    acknowledged: set[bytes] = field(default_factory=set)
    numbers: Any = field(default_factory=count)

    def __post_init__(self) -> None:
        self.randoms = random.Random(self.seed)
        self.case.weather.rolls = random.Random(self.seed)
        self.start()

    def start(self) -> None:
        self.outbox = Outbox(
            self.case.destination,
            random=self.randoms,
            spill=self.spill,
            buffer_bytes=20_000,
            linger_seconds=0.1,
        )

    def put(self, key: str, size: int) -> None:
        body = b"%d" % next(self.numbers) + b"." * size
        try:
            self.outbox.accept(key, body, self.case.weather.now)
        except Full:
            return
        self.accepted.append((key, body))

    def burst(self) -> None:
        """More than the memory takes."""
        for key in KEYS * 7:
            self.put(key, 1_000)

    def turn(self, fault: str) -> None:
        """Time passes until a request is due, and it meets this fault."""
        weather = self.case.weather
        due = self.outbox.due(weather.now, hurry=True)
        if due is None:
            return
        weather.now = math.nextafter(weather.now + due, math.inf)
        weather.fault = fault
        batch = self.outbox.next_batch(weather.now)
        assert batch or not self.outbox.unsent
        answers = attempt(self.case.destination, batch)
        taken, gone = self.outbox.settle(batch, answers, weather.now)
        done = acknowledged(taken)
        assert gone == []
        places = self.case.by_position() if done else {}
        for message, position, sub in done:
            assert places[position.shard, position.sequence][sub] == message.data
            self.acknowledged.add(message.data)
        self.check()

    def check(self) -> None:
        told = self.outbox.counters()
        assert told.failed == {}
        assert told.accepted + told.resumed == told.acknowledged + told.unsent
        assert told.unsent == len({b for _, b in self.accepted} - self.acknowledged)

    def die(self) -> None:
        """`kill -9`, with half a record written that nobody was told of."""
        died(self.outbox._log)
        segments = sorted(Path(self.spill.directory).glob("*.segment"))
        if segments and self.randoms.random() < 0.5:
            with segments[-1].open("ab") as file:
                file.write(b"\x40\0\0\0torn")
        self.in_the_spill()
        self.start()

    def in_the_spill(self) -> None:
        """All that is not acknowledged, in order; some more, whose mark was not written."""
        log = Log(self.spill, bytes(16))
        found = [m.data for m in iter_log(log)]
        log.close()
        wanted = [body for _, body in self.accepted if body not in self.acknowledged]
        assert [body for body in found if body in set(wanted)] == wanted
        # What is sent again now, though acknowledged, is not waited for twice.
        self.acknowledged -= set(found)

    def restart(self) -> None:
        assert self.outbox.rescue()
        self.outbox.close()
        self.in_the_spill()
        self.start()

    def finish(self) -> None:
        for _ in range(10_000):
            if not self.outbox.unsent:
                break
            self.turn("calm")
        received = self.case.received()
        assert set(received) == {body for _, body in self.accepted}
        if self.case.kind in IN_ORDER:
            self.check_order(received)

    def check_order(self, received: list[bytes]) -> None:
        """A message comes first in its key's order; repeats of lost answers may follow later."""
        first = {body: place for place, body in reversed(list(enumerate(received)))}
        for key in KEYS:
            places = [first[body] for k, body in self.accepted if k == key]
            assert places == sorted(places)


def iter_log(log):
    while not log.caught_up:
        yield from log.read()


def steps(*names: str):
    puts = st.tuples(st.just("put"), st.sampled_from(KEYS), st.integers(0, 3_000))
    turns = st.tuples(st.just("turn"), st.sampled_from(FAULTS))
    others = [st.tuples(st.just(name)) for name in ("burst", *names)]
    return st.lists(st.one_of(puts, puts, turns, *others), max_size=60)


def play(run: Run, schedule: list[tuple[Any, ...]]) -> None:
    for name, *arguments in schedule:
        getattr(run, name)(*arguments)
    run.finish()


MANY = settings(max_examples=60, deadline=None)


@pytest.mark.parametrize("kind", KINDS)
@MANY
@given(schedule=steps("die", "restart"), seed=st.integers(0, 2**32))
def test_nothing_is_lost_though_processes_die(kind, schedule, seed, tmp_path_factory):
    directory = tmp_path_factory.mktemp("spill")
    spill = Spill(directory, bytes_max=2**20, fsync="never")
    play(Run(Case(kind), spill, seed), schedule)
    shutil.rmtree(directory)


@pytest.mark.parametrize("kind", ["plain", "kpl", "fifo"])
@MANY
@given(schedule=steps("restart"), seed=st.integers(0, 2**32))
def test_nothing_is_lost_where_only_what_fails_is_spilled(kind, schedule, seed, tmp_path_factory):
    directory = tmp_path_factory.mktemp("spill")
    spill = Spill(directory, bytes_max=2**20, fsync="never", when="away")
    play(Run(Case(kind), spill, seed), schedule)
    shutil.rmtree(directory)


@pytest.mark.parametrize("kind", ["plain", "kpl", "queue"])
@MANY
@given(schedule=steps(), seed=st.integers(0, 2**32))
def test_nothing_is_lost_in_memory(kind, schedule, seed):
    play(Run(Case(kind), None, seed), schedule)


# By hand


def driven(case: Case, spill: Spill | None = None, **more: Any) -> Outbox:
    limits = {"buffer_bytes": 1_000_000, "linger_seconds": 0.1} | more
    return Outbox(case.destination, random=random.Random(1), spill=spill, **limits)


def turned(outbox: Outbox, case: Case, fault: str = "calm"):
    case.weather.fault = fault
    batch = outbox.next_batch(case.weather.now)
    answers = attempt(case.destination, batch)
    taken, gone = outbox.settle(batch, answers, case.weather.now)
    return acknowledged(taken), gone


def test_a_message_waits_for_others_and_no_longer():
    case = Case("plain")
    outbox = driven(case)
    assert outbox.due(0.0) is None
    outbox.accept("a", b"1", 5.0)
    assert outbox.due(5.0) == pytest.approx(0.1)
    outbox.accept("a", b"2", 5.05)
    assert outbox.due(5.05) == pytest.approx(0.05)
    assert outbox.due(5.05, hurry=True) == 0
    for number in range(498):
        outbox.accept("a", b"%d" % number, 5.06)
    assert outbox.due(5.06) == 0  # 500 are a request


def test_a_throttled_message_does_not_hold_up_the_others():
    case = Case("kpl")
    outbox = driven(case)
    outbox.accept("a", b"1", 0.0)
    outbox.accept("b", b"2", 0.0)
    case.weather.rolls = random.Random(3)
    done, _ = turned(outbox, case, "partial")
    assert [ack.message.data for ack in done] == [b"1"]
    outbox.accept("b", b"3", 0.0)  # behind the one that failed: it waits
    outbox.accept("a", b"4", 0.0)
    done, _ = turned(outbox, case)
    assert [ack.message.data for ack in done] == [b"4"]
    assert 0 < outbox.due(0.0, hurry=True) < 0.05
    case.weather.now = 1.0
    assert [ack.message.data for ack in turned(outbox, case)[0]] == [b"2"]
    assert [ack.message.data for ack in turned(outbox, case)[0]] == [b"3"]


def test_pauses_grow_while_the_network_is_away():
    case = Case("plain")
    outbox = driven(case)
    outbox._courier._uniform = lambda _low, high: high
    outbox.accept("a", b"1", 0.0)
    pauses = []
    for _ in range(12):
        turned(outbox, case, "away")
        pauses.append(outbox.due(case.weather.now))
        case.weather.now = math.nextafter(case.weather.now + pauses[-1], math.inf)
    assert pauses[:4] == pytest.approx([0.05, 0.1, 0.2, 0.4])
    assert pauses[-1] == pytest.approx(30.0)
    assert outbox.counters().last_error.startswith("unavailable: send to s: Could not connect")
    turned(outbox, case)
    assert outbox.counters().last_error == ""


def test_memory_is_bounded_and_says_why_it_is_full():
    case = Case("plain")
    outbox = driven(case, buffer_bytes=10_000)
    for _ in range(7):
        outbox.accept("a", b"x" * 1_000, 0.0)
    with pytest.raises(
        Full, match=r"7 messages of 9107 bytes wait in memory, .* \(buffer_bytes\):"
    ):
        outbox.accept("a", b"x" * 1_000, 0.0)
    turned(outbox, case, "away")
    with pytest.raises(Full, match=r"nothing can be sent \(unavailable: .*away"):
        outbox.accept("a", b"x" * 1_000, 0.0)
    assert outbox.counters().accepted == 7


def test_messages_beyond_the_memory_are_read_from_the_disk(tmp_path):
    case = Case("kpl together")
    outbox = driven(case, Spill(tmp_path, fsync="never"), buffer_bytes=20_000)
    wanted = [b"%05d" % number + b"." * 1_000 for number in range(5_000)]
    for body in wanted:
        outbox.accept("a", body, 0.0)
        assert outbox._held_bytes <= 20_000
    while outbox.unsent:
        turned(outbox, case)
        assert outbox._held_bytes <= 10_000 + 4 * 2**20 * 1.4  # and a segment, with its overhead
    assert case.received() == wanted
    assert outbox.counters().spill_bytes < 4 * 2**20


def test_a_message_that_is_refused_for_ever_is_set_aside(tmp_path):
    case = Case("plain")
    outbox = driven(case, Spill(tmp_path))
    for body in (b"1", b"bad", b"2"):
        outbox.accept("a", body, 0.0)
    put = case.destination.client.put_records

    def choosy(**asked: Any) -> Any:
        if any(record["Data"] == b"bad" for record in asked["Records"]):
            raise refused(Call("kinesis", "PutRecords"), "ValidationException")
        return put(**asked)

    case.destination.client.put_records = choosy
    gone = []
    for _ in range(10):
        case.weather.now += 60.0
        gone += turned(outbox, case)[1]
        if not outbox.unsent:
            break
    assert [(m.data, refusal.code) for m, refusal in gone] == [(b"bad", "ValidationException")]
    assert sorted(case.received()) == [b"1", b"2"]
    told = outbox.counters()
    assert told.failed == {"ValidationException": 1}
    assert told.unsent == 0
    assert '"number": 1' in (tmp_path / "refused.ndjson").read_text()


def test_where_everything_is_refused_nothing_is_set_aside(tmp_path):
    """The stream's name may be what is invalid."""
    case = Case("plain")
    outbox = driven(case, Spill(tmp_path))
    outbox.accept("a", b"1", 0.0)

    def invalid(**_: Any) -> Any:
        raise refused(Call("kinesis", "PutRecords"), "ValidationException")

    case.destination.client.put_records = invalid
    for _ in range(5):
        assert turned(outbox, case) == ([], [])
        case.weather.now += 60.0
    assert outbox.counters().unsent == 1
    assert "ValidationException" in outbox.counters().last_error


@pytest.mark.parametrize("key", ["k" * 257, "\ud800"])
def test_a_key_that_no_source_takes(key):
    with pytest.raises(Unsendable, match="a key has at most 256"):
        driven(Case("queue")).accept(key, b"{}", 0.0)


def test_a_fifo_queues_message_keeps_its_deduplication_id_through_the_spill(tmp_path):
    case = Case("fifo")
    sent: list[Counter[str]] = []

    def seen(**asked: Any) -> Any:
        sent.append(Counter(entry["MessageDeduplicationId"] for entry in asked["Entries"]))
        raise EndpointConnectionError(endpoint_url="https://away")

    case.destination.client.send_message_batch = seen
    outbox = driven(case, Spill(tmp_path))
    outbox.accept("a", b"1", 0.0)
    outbox.accept("b", b"2", 0.0)
    turned(outbox, case)
    died(outbox._log)
    turned(driven(case, Spill(tmp_path)), case)
    assert len(sent[0]) == 2
    assert sent[0] == sent[1]
