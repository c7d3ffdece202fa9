"""Law 8: a record that Transform dies of is found, and set aside only where there is a control."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.esm.simulate import Faults
from ingest import breaker, kinesis
from ingest.breaker import Accepted, Breaker, Finding, RejectLimits, Sample
from ingest.killers import PARTS, Hunt, NothingDone, Part, together
from ingest.process import process
from ingest.settings import Wiring, in_threads
from ingest.stages import canary, transform, write_hot
from ingest.workflow import BotoExecutions, ExecutionFailed, TransformDied, Workflow
from sinks import landing, ledger
from sinks.deadline import Deadline
from sinks.errors import Unavailable
from tests.support import (
    NOON,
    SECOND,
    SOME,
    TOPOLOGY,
    Clock,
    Cloud,
    Context,
    InProcessWorkflow,
    answer,
    delivery,
    loopback,
    reading,
    stall,
)
from transform.contract_file import load_contract
from transform.kpl import aggregate
from transform.pipeline import Transform
from transform.records import Outcome

ROUND_SECONDS = 20
INGEST = Context(180_000)
KILLER = b"killer"
PIPELINE = "millrace-telemetry"


# The hunt alone


@dataclass
class World:
    """Transform, told which records it dies of; each round takes a timeout if any part dies."""

    killers: set[int]
    clock: Clock = field(default_factory=Clock)
    canary_dies: bool = False
    weather: set[int] = field(default_factory=set)
    once: set[int] = field(default_factory=set)
    bad: set[int] = field(default_factory=set)
    unread: list[int] = field(default_factory=list)
    found: Finding | None = None
    rounds: int = 1  # the first is the one that found that Transform dies

    def run(self, first: int, received: int, more: dict[str, Any]) -> tuple[Outcome, Sample | None]:
        records = set(range(first, first + received))
        if more.get("unread"):
            self.unread.append(first)
            return Outcome(1, 0, 0, 1, ()), None
        if received == 1 and records & self.once:
            self.once -= records
            raise TransformDied("FAILED: Runtime.ExitError: signal: killed")
        if records & self.killers or (more.get("canary") and self.canary_dies):
            raise TransformDied("FAILED: Sandbox.Timedout")
        if records & self.weather:
            raise Unavailable("no answer")
        bad = records & self.bad
        outcome = Outcome(received, received - len(bad), 0, len(bad), ())
        if more.get("rejects") != "withhold":
            return outcome, None
        keys = frozenset(str(index) for index in bad)
        sample = Sample("telemetry", received, len(bad), keys, Counter({"wrong_type": len(bad)}))
        return Outcome.all_retry(received) if bad else outcome, sample

    def parallel(self, work: Callable[[Part], Any], parts: Sequence[Part]) -> list[Any]:
        done = [work(part) for part in parts]
        self.rounds += any(ran.died for ran in done)
        self.clock.now += ROUND_SECONDS if any(ran.died for ran in done) else 1
        return done

    def hunt(self, received: int, seconds: float = 157) -> Outcome:
        """What is left of ingest's 180 s after Transform has died once and 3 s are kept back."""
        deadline = Deadline(self.clock.now + seconds, self.clock)
        hunt = Hunt(self.run, self.parallel, deadline, ROUND_SECONDS, RejectLimits())
        outcome = hunt.through(received, "died")
        self.found = hunt.found
        return outcome


@pytest.mark.parametrize("received", [2, 9, 5_000, 10_000])
@pytest.mark.parametrize("at", [0.0, 0.3, 1.0])
def test_one_killer_is_set_aside_and_all_others_are_delivered(received: int, at: float):
    killer = round(at * (received - 1))
    world = World({killer})
    assert world.hunt(received) == Outcome(received, received - 1, 0, 1, ())
    assert world.unread == [killer]
    assert world.rounds <= 7


def test_three_killers_at_once_are_set_aside():
    world = World({0, 2_500, 4_999})
    assert world.hunt(5_000) == Outcome(5_000, 4_997, 0, 3, ())


def test_with_four_killers_the_last_goes_back_and_is_found_the_next_time():
    world = World({0, 1_000, 2_500, 4_999})
    outcome = world.hunt(5_000)
    assert outcome.quarantined == 3
    assert 4_999 in outcome.retry_indexes()
    assert outcome.retried < 5_000
    assert world.unread == [0, 1_000, 2_500]


def test_when_everything_kills_three_are_set_aside_if_a_canary_passes_and_else_none():
    assert World(set(range(64))).hunt(64) == Outcome(64, 0, 0, 3, ((3, 64),))
    assert World(set(range(64)), canary_dies=True).hunt(64) == Outcome.all_retry(64)


@pytest.mark.parametrize("dies", [False, True])
def test_a_record_alone_needs_a_canary(dies: bool):  # noqa: FBT001
    world = World({0}, canary_dies=dies)
    outcome = world.hunt(1)
    assert outcome == (Outcome.all_retry(1) if dies else Outcome(1, 0, 0, 1, ()))


def test_a_record_at_which_a_process_died_once_is_no_killer():
    world = World(set(), once={3})
    assert world.hunt(8) == Outcome(8, 8, 0, 0, ())
    assert not world.unread


@pytest.mark.parametrize("received", [201, 500, 5_000])
def test_in_a_delivery_of_which_nearly_all_is_bad_nothing_is_set_aside(received: int):
    """Not its killer either: by the rules that are wrong nobody can say what kills."""
    world = World({received // 3}, bad=set(range(received)))
    assert world.hunt(received) == Outcome.all_retry(received)
    assert world.found == Finding("telemetry", received - 1, received - 1, "wrong_type")
    assert not world.unread


def test_the_parts_without_rejects_of_a_bad_delivery_are_delivered():
    world = World({700}, bad=set(range(100, 800)))
    assert world.hunt(800) == Outcome(800, 100, 0, 0, ((100, 800),))
    assert world.found == Finding("telemetry", 799, 699, "wrong_type")


@pytest.mark.parametrize(("received", "bad"), [(200, 200), (5_000, 2_000)])
def test_rejects_that_are_no_broken_world_are_set_aside_with_the_killer(received: int, bad: int):
    """As without a killer: the Delivery is judged, not the part in which they lie together."""
    world = World({bad // 3}, bad=set(range(bad)))
    assert world.hunt(received) == Outcome(received, received - bad, 0, bad, ())
    assert (world.found, world.unread) == (None, [bad // 3])


def test_no_round_takes_the_time_to_write_what_is_withheld():
    """Else a part with a reject would go back each time, and the good records beside it."""
    world = World({0}, bad={15})
    assert world.hunt(16, seconds=2.25 * ROUND_SECONDS) == Outcome(16, 13, 0, 1, ((0, 2),))


def test_parts_that_met_weather_are_no_control():
    world = World({0}, weather=set(range(1, 8)), canary_dies=True)
    assert world.hunt(8) == Outcome.all_retry(8)
    assert not world.unread


def test_without_time_for_another_round_the_rest_goes_back():
    world = World({0})
    outcome = world.hunt(5_000, seconds=ROUND_SECONDS + 1)
    assert outcome == Outcome(5_000, 4_375, 0, 0, ((0, 625),))
    assert World({0}).hunt(5_000, seconds=ROUND_SECONDS) == Outcome.all_retry(5_000)


@given(st.integers(1, 10_000))
def test_a_split_covers_the_part_once(received: int):
    parts = [*Part(7, received).split()]
    assert len(parts) <= PARTS
    covered = [index for part in parts for index in range(part.first, part.first + part.received)]
    assert covered == [*range(7, 7 + received)]


@SOME
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 2)), min_size=1, max_size=8))
def test_together_is_the_sum_of_the_parts(spec: list[tuple[int, int]]):
    parts: list[tuple[Part, Outcome | None]] = []
    first, back = 0, []
    for received, kind in spec:
        outcome = [Outcome(received, received, 0, 0, ()), Outcome.all_retry(received), None][kind]
        parts.append((Part(first, received), outcome))
        back += [first + n for n in range(received)] if kind else []
        first += received
    whole = together(first, parts)
    assert whole.retry_indexes() == back
    assert whole.delivered == first - len(back)


def test_a_deliverys_parts_run_at_once():
    meeting = threading.Barrier(24, timeout=10)
    parts = [Part(n, 1) for n in range(24)]
    assert in_threads(lambda part: (meeting.wait(), part)[1], parts) == parts  # type: ignore[arg-type,return-value]


# On the whole path


@dataclass
class Path:
    """A pipeline whose Transform dies of every record that holds the word."""

    account: Cloud
    wiring: Wiring
    workflow: InProcessWorkflow
    broken: bool = False

    def transform(self, state: dict[str, Any], context: Any) -> dict[str, Any]:
        rows = landing.read(self.account.bucket, state["raw_key"], ["_body"])
        bodies = rows.slice(state["first"], state["received"]).column("_body").to_pylist()
        if self.broken or (not state.get("unread") and any(KILLER in body for body in bodies)):
            raise MemoryError("Runtime.ExitError: signal: killed")
        return transform(state, self.wiring, context)

    def attempts(self) -> list[ledger.Attempt]:
        return [*ledger.attempts(self.account.ledger)]


@pytest.fixture
def path(account: Cloud) -> Path:
    wiring = account.wiring()
    wiring.parallel = lambda work, parts: [work(part) for part in parts]
    stages: dict[str, Any] = {}
    workflow = InProcessWorkflow(TOPOLOGY, stages, account.dynamodb)
    made = Path(account, wiring, workflow)
    stages[TOPOLOGY.transform.name] = made.transform
    stages[TOPOLOGY.hot.name] = lambda state, context: write_hot(state, wiring, context)
    wiring.workflow = workflow  # type: ignore[assignment]
    return made


def test_a_killer_is_quarantined_whole_and_named(path: Path):
    whole = aggregate([("a", reading(seq=50)), ("b", KILLER)])
    bodies = [*(reading(seq=n) for n in range(20)), whole, *(reading(seq=n) for n in range(30, 50))]
    made = delivery(bodies)
    outcome = process(made, path.wiring, INGEST)
    assert outcome == Outcome(41, 40, 0, 1, ())
    assert kinesis.respond(made, outcome) == {"batchItemFailures": []}
    (key,) = path.account.keys("quarantine/")
    (row,) = landing.read(path.account.bucket, key).to_pylist()
    assert (row["_step"], row["_reason"], row["_body"]) == ("open", "killer", whole)
    assert (row["_sequence"], row["_index"]) == (made.sequences[20], 20)
    assert (row["_version"], row["_generation"], row["_elements"]) == (0, "unread", 1)
    assert "Transform died of it alone, while 40 records of its Delivery passed" in row["_detail"]
    assert len(path.account.items()) == 40


def test_the_ledger_covers_each_record_once_by_its_parts(path: Path):
    process(delivery([*(reading(seq=n) for n in range(20)), KILLER]), path.wiring, INGEST)
    covered = sorted(i for a in path.attempts() for i in a.indexes if i not in a.handed_back)
    assert covered == [*range(21)]
    assert sum(a.delivered for a in path.attempts()) == 20
    assert sum(a.quarantined for a in path.attempts()) == 1


def test_rows_of_a_part_keep_their_place_in_the_raw_object(path: Path):
    process(delivery([KILLER, *(reading(seq=n) for n in range(1, 20))]), path.wiring, INGEST)
    tables = [landing.read(path.account.bucket, key) for key in path.account.keys("landing/")]
    rows = [row for table in tables for row in table.to_pylist()]
    assert {row["_index"]: row["sequence"] for row in rows} == {n: n for n in range(1, 20)}


def test_a_killer_alone_passes_if_a_canary_does(path: Path):
    assert process(delivery([KILLER]), path.wiring, INGEST) == Outcome(1, 0, 0, 1, ())


def test_when_transform_is_broken_ingest_raises_and_nothing_is_set_aside(path: Path):
    path.broken = True
    with pytest.raises(NothingDone, match="Transform died of 3 records and passed none"):
        process(delivery([KILLER, reading(), reading(seq=1)]), path.wiring, INGEST)
    assert path.account.keys("quarantine/") == []
    path.broken = False
    assert process(delivery([reading()] * 3), path.wiring, INGEST) == Outcome(3, 3, 0, 0, ())


def test_an_all_bad_delivery_with_a_killer_stops_the_mapping_and_is_not_bisected(path: Path):
    made = delivery([reading(device_id=7)] * 250)
    made.groups[:] = [f"device-{number % 10}" for number in range(250)]
    made.bodies[77] = KILLER
    with loopback(answer(200, b"{}")) as server:
        path.wiring.breaker = Breaker(path.account.bucket, server.client("lambda"), PIPELINE)
        assert process(made, path.wiring, INGEST) == Outcome.all_retry(250)
    assert path.account.keys("quarantine/") == path.account.keys("landing/") == []
    stop = breaker.tripped(path.account.bucket, PIPELINE, "kinesis")
    assert stop is not None
    assert stop.finding == Finding("telemetry", 249, 249, "wrong_type (device_id)")
    breaker.accept(path.account.bucket, PIPELINE, Accepted("telemetry", NOON + 1))
    assert process(made, path.wiring, INGEST) == Outcome(250, 0, 0, 250, ())


def test_rejects_beside_a_killer_are_judged_once_and_set_aside(path: Path):
    bodies = [reading(device_id=7)] * 20 + [KILLER] + [reading(seq=n) for n in range(20)]
    assert process(delivery(bodies), path.wiring, INGEST) == Outcome(41, 20, 0, 21, ())
    covered = sorted(i for a in path.attempts() for i in a.indexes if i not in a.handed_back)
    assert covered == [*range(41)]
    assert {a.reason for a in path.attempts() if a.retry} == {"withheld"}


def test_a_raw_object_that_is_gone_starts_no_hunt(path: Path):
    def expire(state: dict[str, Any], context: Any) -> dict[str, Any]:
        path.account.s3.delete_object(Bucket=path.account.bucket.name, Key=state["raw_key"])
        return transform(state, path.wiring, context)

    made, stages = delivery([reading()] * 30), path.workflow.stages
    path.workflow.stages = {**stages, TOPOLOGY.transform.name: expire}
    assert process(made, path.wiring, INGEST) == Outcome.all_retry(30)
    assert [a.reason for a in path.attempts()] == ["gone"]
    path.workflow.stages = stages
    assert process(made, path.wiring, INGEST) == Outcome(30, 30, 0, 0, ())


def test_another_end_than_transforms_death_starts_no_hunt(path: Path):
    def lost(state: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
        assert min(state["received"], timeout_seconds) > 0
        raise ExecutionFailed("FAILED: TransformDidNotRun")

    path.workflow.run = lost  # type: ignore[method-assign]
    assert process(delivery([reading()] * 3), path.wiring, INGEST) == Outcome.all_retry(3)


def test_every_shipped_contract_has_a_canary():
    for name in ("telemetry", "environment-sensors"):
        canary(Transform(load_contract(name)))


def test_a_shard_gets_past_a_killer_that_a_mapping_brings(path: Path, millrace_esm: Any):
    """However it is batched: with bisect on, and some invocations lost besides."""
    bodies = [reading(seq=n) for n in range(60)]
    bodies[17] = KILLER

    def handler(event: dict[str, Any], _: Any) -> dict[str, Any]:
        made = kinesis.read(event)
        return kinesis.respond(made, process(made, path.wiring, INGEST))

    esm = millrace_esm.kinesis(
        handler,
        records=bodies,
        batch_size=25,
        bisect=True,
        on_failure="s3",
        faults=Faults(script=("", "lost", "error")),
    )
    result = esm.run()
    assert (len(result.delivered), result.lost, result.parked) == (60, (), ())


# One StartSyncExecution for each part, whatever becomes of it


def test_no_part_is_begun_twice_at_an_endpoint_that_stalls(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_DISABLE_HOST_PREFIX_INJECTION", "true")
    arn = "arn:aws:states:us-east-1:0:stateMachine:batch"
    ended = {"executionArn": arn, "startDate": 0, "stopDate": 1, "status": "FAILED"}
    died = answer(200, json.dumps(ended | {"error": "TransformDied"}).encode())
    with loopback(died, stall) as server:
        path.wiring.workflow = Workflow(BotoExecutions(server.client), arn)
        path.wiring.parallel = in_threads
        with pytest.raises(NothingDone):
            process(delivery([reading(seq=n) for n in range(40)]), path.wiring, Context(4_900))
        time.sleep(0.2)
        inputs = [json.loads(json.loads(body)["input"]) for _, body in server.requests]
    assert [(i["first"], i["received"]) for i in inputs[:1]] == [(0, 40)]
    assert sorted((i["first"], i["received"]) for i in inputs[1:]) == [
        (first, 5) for first in range(0, 40, 5)
    ]


def test_a_killer_among_5000_records_of_a_mapping_costs_none_of_the_others(
    path: Path, millrace_esm: Any
):
    old = NOON - 400 * 86_400 * SECOND  # past what is kept hot: a mocked table is slow
    bodies = [reading(f"d-{n % 50}", old, n) for n in range(5_000)]
    bodies[3_333] = KILLER

    def handler(event: dict[str, Any], _: Any) -> dict[str, Any]:
        made = kinesis.read(event)
        return kinesis.respond(made, process(made, path.wiring, INGEST))

    esm = millrace_esm.kinesis(handler, records=bodies, batch_size=5_000, bisect=True)
    result = esm.run()
    assert (len(result.delivered), result.lost, result.parked) == (5_000, (), ())
    (key,) = path.account.keys("quarantine/")
    (row,) = landing.read(path.account.bucket, key).to_pylist()
    assert (row["_reason"], row["_body"]) == ("killer", KILLER)
    tables = [landing.read(path.account.bucket, key) for key in path.account.keys("landing/")]
    assert sum(table.num_rows for table in tables) == 4_999


def test_killers_are_counted_in_a_metric(path: Path, capsys: pytest.CaptureFixture[str]):
    process(delivery([KILLER, *(reading(seq=n) for n in range(9))]), path.wiring, INGEST)
    (flush,) = (line for line in capsys.readouterr().out.splitlines() if "_aws" in line)
    assert json.loads(flush)["Killers"] == [1.0]
