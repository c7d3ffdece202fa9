"""A Kinesis mapping: batches, retries, bisect, age, lanes, reshards. Rules name their source."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.esm.answers import Result, Undocumented
from infra.esm.events import record
from infra.esm.plugin import EsmFactory
from infra.esm.reshard import Lineage
from infra.esm.shard import ShardMachine, lane_of
from infra.esm.simulate import Faults
from infra.esm.stream import (
    Checkpoint,
    Discard,
    Invoke,
    StreamRules,
)
from tests.support import SOME

SUCCESS = Result("answered", b"{}")
ERROR = Result("failed", b"", "Unhandled")
THROTTLE = Result("refused", error="TooManyRequestsException")
BOTH = pytest.mark.parametrize("either", [False, True])


def handed_back(*numbers: int) -> Result:
    failures = [{"itemIdentifier": str(number)} for number in numbers]
    return Result("answered", json.dumps({"batchItemFailures": failures}).encode())


def of(numbers: range, at: float = 0.0, key: str = "k", size: int = 1) -> list[Any]:
    return [record(str(number), key, bytes(size), at) for number in numbers]


class Driven:
    """A machine and what it said: `8-11` an invocation, `<11` a checkpoint, `!8-8` a discard.

    Results come from a script, then success; what waits is waited for.
    """

    def __init__(self, rules: StreamRules, *script: Result, **undocumented: bool) -> None:
        self.machine = ShardMachine(rules, Undocumented(**undocumented))
        self.script = list(script)
        self.now = 0.0
        self.said: list[str] = []
        self.discards: list[Discard] = []

    def read(self, numbers: range, **more: Any) -> Driven:
        self.machine.read(of(numbers, **more), self.now)
        return self

    def run(self) -> list[str]:
        while True:
            while commands := self.machine.take(self.now):
                for command in commands:
                    self._obey(command)
            wake = self.machine.wake(self.now)
            if wake is None or wake > 1e7:
                return self.said
            assert wake > self.now, "the machine turns in circles"
            self.now = wake

    def _obey(self, command: Any) -> None:
        match command:
            case Checkpoint(sequence):
                self.said.append(f"<{sequence}")
            case Invoke():
                self.said.append(f"{command.records[0].sequence}-{command.records[-1].sequence}")
                result = self.script.pop(0) if self.script else SUCCESS
                self.machine.result(command.lane, result, self.now)
            case Discard():
                self.discards.append(command)
                numbers = [each.sequence for each in command.records]
                self.said.append(f"!{numbers[0]}-{numbers[-1]}")
                self.machine.discarded(command.lane)


# ---- Batches ----


def test_a_batch_is_cut_by_count_and_the_rest_waits_for_the_window():
    """aws.md 3.1: BatchSize, window or 6 MB."""
    driven = Driven(StreamRules(batch_size=4, window_seconds=5)).read(range(1, 7))
    assert driven.run() == ["1-4", "<4", "5-6", "<6"]
    assert driven.now == 5.0


def test_a_batch_is_cut_by_bytes():
    """aws.md 1.3 [B]: 6 MB of a synchronous event; a megabyte is 1.33 of base64."""
    driven = Driven(StreamRules(window_seconds=300)).read(range(1, 7), size=1_000_000)
    assert driven.run()[0] == "1-4"
    assert driven.now == 300.0


def test_the_window_begins_with_the_first_record():
    """aws.md 1.3 [B]: MaximumBatchingWindowInSeconds."""
    driven = Driven(StreamRules(window_seconds=10)).read(range(1, 3))
    driven.now = 4.0
    driven.read(range(3, 5))
    assert driven.run() == ["1-4", "<4"]
    assert driven.now == 10.0


def test_what_waited_behind_a_batch_does_not_wait_again():
    driven = Driven(StreamRules(batch_size=2, window_seconds=10), ERROR).read(range(1, 4))
    driven.now = 20.0
    assert driven.run() == ["1-2", "1-2", "<2", "3-3", "<3"]
    assert driven.now == 21.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"batch_size": 10_001},
        {"window_seconds": 301},
        {"maximum_retry_attempts": -2},
        {"maximum_retry_attempts": 10_001},
        {"maximum_record_age_seconds": 59},
        {"maximum_record_age_seconds": 0},
        {"maximum_record_age_seconds": 604_801},
        {"parallelization_factor": 11},
    ],
)
def test_what_aws_refuses_is_refused(wrong):
    """aws.md 1.3 [B, A]: the ranges of the settings; an age of 0 to 59 is rejected."""
    with pytest.raises(ValueError, match="Kinesis mapping"):
        StreamRules(**wrong)


# ---- Partial answers ----


def test_the_lowest_number_is_the_checkpoint_and_all_behind_it_come_again():
    """aws.md 3.1 table row 2 [D], pitfalls 3: as an integer, or "10" would come before "9"."""
    driven = Driven(StreamRules(), handed_back(10, 9)).read(range(8, 12))
    assert driven.run() == ["8-11", "<8", "9-11", "<11"]


@pytest.mark.parametrize("failure", [ERROR, Result("answered", b'{"batchItemFailures": [{}]}')])
def test_a_failure_brings_the_whole_batch_again_and_moves_nothing(failure):
    """aws.md 3.1 table rows 3 and 5 [D]."""
    driven = Driven(StreamRules(), failure).read(range(1, 5))
    assert driven.run() == ["1-4", "1-4", "<4"]


@BOTH
def test_the_rest_is_retried_as_it_is_or_topped_up(either):
    """Undocumented: aws.md 3.1 says which records come again, not with which others."""
    driven = Driven(StreamRules(batch_size=4), handed_back(3), rest_is_topped_up=either)
    driven.read(range(1, 7))
    rest = ["3-6", "<6"] if either else ["3-4", "<4", "5-6", "<6"]
    assert driven.run() == ["1-4", "<2", *rest]


def test_a_number_is_compared_as_an_integer_and_named_as_it_came():
    """An emulator pads its numbers with zeros: without them nobody finds the record again."""
    machine = ShardMachine(StreamRules())
    machine.read([record(number, "k", b"", 0.0) for number in ("0009", "0010")], 0.0)
    (invoke,) = machine.take(0.0)
    assert isinstance(invoke, Invoke)
    named = b'{"batchItemFailures": [{"itemIdentifier": "0010"}]}'
    machine.result(invoke.lane, Result("answered", named), 0.0)
    assert machine.take(0.0) == [Checkpoint("0009")]


# ---- Retries ----


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_retries_count_what_follows_the_first_attempt(retries):
    """aws.md 1.3 [B]: MaximumRetryAttempts; then the batch is discarded and the next one goes."""
    driven = Driven(StreamRules(2, maximum_retry_attempts=retries), *[ERROR] * (retries + 1))
    assert driven.read(range(1, 4)).run() == ["1-2"] * (retries + 1) + ["!1-2", "<2", "3-3", "<3"]
    (discard,) = driven.discards
    assert (discard.condition, discard.invocations) == ("RetryAttemptsExhausted", retries + 1)


def test_without_a_limit_a_bad_record_blocks_its_shard():
    """aws.md 3.1 [D], pitfalls 2: the defaults, -1 and -1."""
    driven = Driven(StreamRules(1), *[ERROR] * 500).read(range(1, 3))
    assert driven.run() == ["1-1"] * 501 + ["<1", "2-2", "<2"]


def test_a_throttle_consumes_no_retry_and_does_not_bisect():
    """aws.md 3.1 [D]: an error before the invocation is retried until expiry or age."""
    rules = StreamRules(bisect=True, maximum_retry_attempts=0)
    driven = Driven(rules, *[THROTTLE] * 50).read(range(1, 4))
    assert driven.run() == ["1-3"] * 51 + ["<3"]


def test_a_throttle_is_retried_until_the_records_are_too_old():
    """aws.md 3.1 [D]: MaximumRecordAge ends it, and no invocation was made."""
    rules = StreamRules(maximum_record_age_seconds=60, maximum_retry_attempts=0)
    driven = Driven(rules, *[THROTTLE] * 50).read(range(1, 4))
    assert driven.run()[-2:] == ["!1-3", "<3"]
    assert driven.now == 60.0
    (discard,) = driven.discards
    assert (discard.condition, discard.invocations) == ("RecordAgeExceeded", 0)


@BOTH
def test_progress_resets_the_retries_or_not(either):
    """Undocumented: aws.md 3.1 and section 5."""
    script = [handed_back(2), handed_back(3), handed_back(4)]
    rules = StreamRules(maximum_retry_attempts=1)
    driven = Driven(rules, *script, progress_resets_retries=either).read(range(1, 6))
    if either:
        assert driven.run() == ["1-5", "<1", "2-5", "<2", "3-5", "<3", "4-5", "<5"]
    else:
        assert driven.run() == ["1-5", "<1", "2-5", "<2", "!3-5", "<5"]


def test_persistent_partial_failures_reach_the_limit():
    """aws.md 3.1 [D]: "based on your retry strategy", so a partial answer consumes retries too."""
    driven = Driven(StreamRules(maximum_retry_attempts=2), *[handed_back(1)] * 3)
    assert driven.read(range(1, 4)).run() == ["1-3"] * 3 + ["!1-3", "<3"]


# ---- Bisect ----


def test_an_error_splits_the_batch_and_consumes_no_retry():
    """aws.md 3.1 [D], pitfalls 3: only the record that fails alone uses up retries."""
    rules = StreamRules(bisect=True, maximum_retry_attempts=1)
    driven = Driven(rules, ERROR, SUCCESS, ERROR, ERROR, ERROR).read(range(1, 5))
    assert driven.run() == ["1-4", "1-2", "<2", "3-4", "3-3", "3-3", "!3-3", "<3", "4-4", "<4"]


def test_a_partial_answer_splits_at_the_number_and_consumes_no_retry():
    """aws.md 3.1 [D]: only the remainder is retried."""
    rules = StreamRules(bisect=True, maximum_retry_attempts=0)
    driven = Driven(rules, handed_back(3), handed_back(4)).read(range(1, 5))
    assert driven.run() == ["1-4", "<2", "3-4", "<3", "4-4", "<4"]


def test_a_malformed_answer_splits_like_an_error():
    """aws.md 3.1 table row 3 [D]: complete failure."""
    driven = Driven(StreamRules(bisect=True), Result("answered", b'{"batchItemFailures": [{}]}'))
    assert driven.read(range(1, 3)).run() == ["1-2", "1-1", "<1", "2-2", "<2"]


@BOTH
def test_naming_the_first_record_halves_the_batch_or_retries_it(either):
    """Undocumented: aws.md 3.1 says to split at the number, where there is nothing before it."""
    rules = StreamRules(bisect=True, maximum_retry_attempts=1)
    driven = Driven(rules, handed_back(1), bisect_halves_at_first=either).read(range(1, 5))
    again = ["1-2", "<2", "3-4", "<4"] if either else ["1-4", "<4"]
    assert driven.run() == ["1-4", *again]


@BOTH
def test_halves_inherit_the_retries_or_not(either):
    """Undocumented: aws.md 3.1 says only that the split itself consumes none."""
    rules = StreamRules(bisect=True, maximum_retry_attempts=1)
    script = [handed_back(1), ERROR, ERROR]  # a retry, then a split, then the first half again
    driven = Driven(rules, *script, split_resets_retries=either).read(range(1, 3))
    first = ["1-1", "1-1", "<1"] if either else ["1-1", "!1-1", "<1"]
    assert driven.run() == ["1-2", "1-2", *first, "2-2", "<2"]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
def test_one_poison_record_is_all_that_is_discarded(count):
    """aws.md 3.1: isolates bad records; in about two invocations for each halving."""
    for poison in {0, count // 2, count - 1}:
        factory = EsmFactory()

        def handler(event: Any, _: Any) -> None:
            assert all(one["kinesis"]["partitionKey"] != "bad" for one in event["Records"])

        records = [("bad" if n == poison else f"k{n}", b"x") for n in range(count)]
        esm = factory.kinesis(handler, records, bisect=True, retries=2, on_failure="s3")
        result = esm.run()
        assert result.parked == (result.sent[poison],)
        assert len(result.delivered) == count - 1
        assert len(result.invocations) <= 2 * count.bit_length() + 4


# ---- Age ----


@BOTH
def test_only_the_aged_are_discarded_or_their_batch(either):
    """aws.md 1.3 [B]: "discard records older than"; what of their batch is undocumented."""
    driven = Driven(StreamRules(maximum_record_age_seconds=60), age_takes_whole_batch=either)
    driven.machine.read([*of(range(1, 3), at=-60.0), *of(range(3, 5), at=-59.0)], 0.0)
    assert driven.run() == (["!1-4", "<4"] if either else ["!1-2", "<2", "3-4", "<4"])
    assert driven.discards[0].condition == "RecordAgeExceeded"


def test_the_streams_retention_ends_what_no_limit_ends():
    """aws.md 3.1 [D]: with -1 and -1, records are retried until they expire."""
    machine = ShardMachine(StreamRules(), retention_seconds=3_600)
    machine.read(of(range(1, 2)), 0.0)
    (invoke,) = machine.take(0.0)
    assert isinstance(invoke, Invoke)
    machine.result(invoke.lane, ERROR, 3_599.0)
    (discard,) = machine.take(3_600.0)
    assert isinstance(discard, Discard)


def test_the_checkpoint_waits_for_the_destination():
    """Set aside before it is acknowledged: what was discarded must be durable first."""
    machine = ShardMachine(StreamRules(1, maximum_retry_attempts=0))
    machine.read(of(range(1, 3)), 0.0)
    machine.take(0.0)
    machine.result(0, ERROR, 0.0)
    (discard,) = machine.take(1.0)
    assert isinstance(discard, Discard)
    assert machine.take(1e6) == []
    assert machine.wake(1e6) is None
    machine.discarded(0)
    assert machine.take(1e6)[0] == Checkpoint("1")


# ---- Lanes ----


def two_lanes() -> tuple[str, str]:
    """Two partition keys that go to different lanes of two."""
    first = next(f"k{n}" for n in range(99) if lane_of(f"k{n}", 2) == 0)
    return first, next(f"k{n}" for n in range(99) if lane_of(f"k{n}", 2) == 1)


def test_the_checkpoint_moves_only_past_what_all_lanes_have_done():
    """aws.md 3.1 [D]: up to ten batches a shard at once; a restart must not skip the slow one's."""
    slow, fast = two_lanes()
    machine = ShardMachine(StreamRules(parallelization_factor=2))
    machine.read(
        [record(str(n), key, b"", 0.0) for n, key in enumerate([fast, slow, fast, slow], 1)], 0.0
    )
    first, second = machine.take(0.0)
    assert isinstance(first, Invoke)
    assert isinstance(second, Invoke)
    machine.result(second.lane, SUCCESS, 0.0)
    assert machine.take(0.0) == [Checkpoint("1")]
    machine.result(first.lane, SUCCESS, 0.0)
    assert machine.take(0.0) == [Checkpoint("4")]


def test_a_key_always_goes_to_the_same_lane():
    """aws.md 3.1 [D]: order is kept per partition key."""
    for factor in range(1, 11):
        lanes = {lane_of(f"key-{n}", factor) for n in range(500)}
        assert lanes == set(range(factor))
    assert lane_of("\ud800", 10) == lane_of("\ud800", 10)


def test_reading_stops_when_enough_is_at_hand():
    machine = ShardMachine(StreamRules(batch_size=10))
    assert machine.hungry
    machine.read(of(range(20)), 0.0)
    assert not machine.hungry
    large = ShardMachine(StreamRules(batch_size=10_000))
    large.read(of(range(10), size=1_048_576), 0.0)
    assert not large.hungry


# ---- Reshards ----


def test_children_wait_for_all_their_parents():
    lineage = Lineage()
    lineage.learn({"a": [], "b": [], "ab": ["a", "b"], "c": ["ab"]})
    assert lineage.ready() == ["a", "b"]
    lineage.end("a")
    assert lineage.ready() == []
    lineage.end("b")
    assert lineage.ready() == ["ab"]
    assert lineage.ready() == []


def test_a_parent_that_was_trimmed_is_not_waited_for():
    lineage = Lineage()
    lineage.learn({"child": ["gone"]})
    assert lineage.ready() == ["child"]


def test_a_closed_shard_ends_when_the_last_is_settled():
    machine = ShardMachine(StreamRules())
    machine.read(of(range(1, 2)), 0.0)
    machine.close()
    assert not machine.hungry
    machine.take(0.0)
    assert not machine.ended
    machine.result(0, SUCCESS, 0.0)
    assert not machine.ended  # its last checkpoint has not been taken
    assert machine.take(0.0) == [Checkpoint("1")]
    assert machine.ended


def test_a_key_keeps_its_order_over_a_split_and_a_merge():
    """Children wait: else a key's later records would overtake its earlier ones, stuck behind."""
    esm = EsmFactory().kinesis(lambda *_: None, batch_size=3, faults=Faults(script=("error",) * 5))

    def reshard() -> None:
        left, right = esm.stream.split("shardId-000000000000")
        esm.at(6, lambda: esm.stream.merge(left, right))

    esm.at(3, reshard)
    for second in range(12):
        for key in "abcd":
            esm.put(key, b"x", at=second)
    result = esm.run()
    assert result.delivered == result.sent
    assert len(result.sent) == 48
    assert result.out_of_order == []
    assert len(result.ended) == 3
    assert len(result.checkpoints) == 4


# ---- Whatever happens ----

probability = st.sampled_from([0.0, 0.05, 0.2])


@SOME
@given(
    st.integers(0, 2**32),
    st.builds(Faults, probability, probability, probability, probability, probability),
    st.sampled_from(list(Undocumented.every())),
    st.fixed_dictionaries(
        {
            "batch_size": st.integers(1, 12),
            "window": st.sampled_from([0, 1, 5]),
            "bisect": st.booleans(),
            "retries": st.sampled_from([-1, 0, 2]),
            "max_age": st.sampled_from([-1, 60, 600]),
            "parallelization_factor": st.integers(1, 4),
            "shards": st.integers(1, 3),
        }
    ),
)
def test_no_record_is_lost_and_a_keys_first_attempts_are_in_order(seed, faults, settled, rules):
    """Faults, regroupings, reshards: each record ends taken or at the on-failure destination."""
    took: set[str] = set()
    calls = [0]

    def handler(event: Any, _: Any) -> Any:
        calls[0] += 1
        numbers = [one["kinesis"]["sequenceNumber"] for one in event["Records"]]
        if (seed + calls[0]) % 3 or len(numbers) < 2:
            took.update(numbers)
            return None
        took.update(numbers[:1])
        return {"batchItemFailures": [{"itemIdentifier": number} for number in numbers[:0:-1]]}

    esm = EsmFactory().kinesis(
        handler, on_failure="s3", faults=faults, undocumented=settled, seed=seed, **rules
    )
    for number in range(40):
        esm.put(f"key-{number % 7}", b"x", at=number / 4)
    esm.at(4, lambda: esm.stream.split("shardId-000000000000"))
    result = esm.run()
    assert set(result.delivered) <= took
    assert sorted((*result.delivered, *result.parked), key=int) == list(result.sent)
    assert not result.lost
    assert not result.pending
    assert not result.out_of_order
    assert sum(d["KinesisBatchInfo"]["batchSize"] for d in result.on_failure) == len(result.parked)
    for shard in esm.stream.shards.values():
        if shard.records:
            assert result.checkpoints[shard.name] == shard.records[-1].identifier
