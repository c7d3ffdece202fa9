"""What the stages answer: every source record has one fate, and nothing is begun too late."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.config import Config
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.process import account
from ingest.settings import Wiring
from ingest.stages import ANSWER_SECONDS, RETRY_RANGES_MAX, ranges, transform, write_hot
from sinks import landing, raw
from sinks.bucket import Bucket
from sinks.deadline import Deadline
from sinks.table import Table
from tests.support import (
    NOON,
    SECOND,
    SOME,
    Answer,
    Clock,
    Cloud,
    Context,
    delivery,
    drop,
    json_error,
    loopback,
    reading,
    s3_error,
    stall,
)
from transform.kpl import aggregate
from transform.records import ConservationError, Outcome

ONCE = Config(
    connect_timeout=1,
    read_timeout=0.2,
    retries={"total_max_attempts": 1},
    s3={"addressing_style": "path"},
)
MONTHS = 90 * 86_400 * SECOND
WEATHER = [s3_error(503, "SlowDown"), stall, drop]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def wiring(account: Cloud, clock: Clock) -> Wiring:
    return account.wiring(clock)


def archived(wiring: Wiring, *bodies: bytes, seconds: float = 100) -> dict[str, Any]:
    """The state of a Delivery of these bodies, as ingest hands it to the workflow."""
    made = delivery(bodies)
    key = raw.archive(wiring.bucket, made, Deadline(wiring.clock() + 60, wiring.clock))
    return {
        "raw_key": key,
        "archived": len(made),
        "first": 0,
        "received": len(made),
        "epoch": 0,
        "deadline_ms": round((wiring.clock() + seconds) * 1000),
    }


def transformed(wiring: Wiring, *bodies: bytes) -> dict[str, Any]:
    """The state as it comes to the Hot stage."""
    state = archived(wiring, *bodies)
    answer = transform(state, wiring, Context())
    return state | {"transform": answer, "account": answer["account"]}


def outcome_of(answer: dict[str, Any], received: int) -> Outcome:
    return account(answer, received)


class Refusing:
    """A DynamoDB client that leaves the items of some devices unprocessed."""

    def __init__(self, real: Any, *devices: str) -> None:
        self.real = real
        self.devices = devices
        self.calls = 0

    def batch_write_item(self, RequestItems: dict[str, Any]) -> Any:  # noqa: N803
        self.calls += 1
        ((name, puts),) = RequestItems.items()
        left = [p for p in puts if p["PutRequest"]["Item"]["device_id"]["S"] in self.devices]
        if taken := [put for put in puts if put not in left]:
            self.real.batch_write_item(RequestItems={name: taken})
        return {"UnprocessedItems": {name: left}}


def refuse(wiring: Wiring, *devices: str) -> Refusing:
    client = Refusing(wiring.hot_table.client, *devices)
    wiring.hot_table = Table(client, wiring.hot_table.name)
    return client


# Transform


def test_the_rules_of_what_was_only_rejected_are_kept(account: Cloud, wiring: Wiring):
    """Else nobody could judge again what they did."""
    rules = wiring.contract
    transformed(wiring, b"not JSON")
    assert account.keys("landing/") == []
    assert account.keys("contracts/") == [f"contracts/{rules.name}/{rules.digest}.toml"]


def test_transform_answers_with_pointers_and_counts(account: Cloud, wiring: Wiring):
    state = archived(wiring, reading(), b"no", reading(moment=NOON - MONTHS), reading(seq=1))
    answer = transform(state, wiring, Context())
    rules = wiring.transform(0)
    assert answer.pop("millis") >= 0
    assert answer.pop("landing_bytes") == len(account.bucket.get(answer["landing_key"]))
    (rejected,) = answer.pop("rejected")
    assert (rejected["reason"], rejected["count"], answer.pop("untold")) == ("malformed_json", 1, 0)
    assert answer == {
        "outcome": "done",
        "contract": "telemetry",
        "version": rules.generation.version,
        "generation": rules.generation.digest,
        "landing_key": account.keys("landing/telemetry/2026-11-24/12/")[0],
        "landing_rows": 3,
        "quarantine_key": account.keys("quarantine/telemetry/2026-11-24/12/")[0],
        "quarantine_rows": 1,
        "dropped_key": "",
        "dropped_rows": 0,
        "hot_rows": 2,
        "account": {
            "outcome": "done",
            "reason": "",
            "delivered": 3,
            "dropped": 0,
            "quarantined": 1,
            "retry": "[]",
        },
    }


def test_transform_counts_source_records_and_not_rows(wiring: Wiring):
    both = aggregate([("k", reading()), ("k", b"no"), ("k", b"no"), ("k", reading(seq=1))])
    state = archived(wiring, both, aggregate([("k", reading(seq=n)) for n in range(3)]))
    answer = transform(state, wiring, Context())
    assert (answer["landing_rows"], answer["quarantine_rows"], answer["hot_rows"]) == (5, 2, 5)
    assert outcome_of(answer, 2) == Outcome(2, 1, 0, 1, ())


def test_transform_again_writes_nothing_new(account: Cloud, wiring: Wiring):
    state = archived(wiring, reading(), b"no")
    first = transform(state, wiring, Context())
    keys = account.keys()
    again = transform(state, wiring, Context())
    assert account.keys() == keys
    assert {**first, "millis": 0} == {**again, "millis": 0}


@pytest.mark.parametrize(("seconds", "remaining_ms"), [(0, 60_000), (-1, 60_000), (100, 6_000)])
def test_transform_begins_nothing_after_the_deadline(
    account: Cloud, wiring: Wiring, seconds: float, remaining_ms: int
):
    state = archived(wiring, reading(), b"no", seconds=seconds)
    answer = transform(state, wiring, Context(remaining_ms))
    assert account.keys() == [state["raw_key"]]
    assert (answer["outcome"], answer["hot_rows"], answer["landing_key"]) == ("retry", 0, "")
    assert answer["account"]["reason"] == "deadline"
    assert outcome_of(answer, 2) == Outcome.all_retry(2)


def test_after_the_deadline_not_even_raw_is_read(wiring: Wiring):
    state = archived(wiring, reading(), seconds=0)
    wiring.bucket = Bucket(None, "unreachable")
    assert transform(state, wiring, Context())["account"]["reason"] == "deadline"


@pytest.mark.parametrize("weather", WEATHER)
def test_transform_without_s3_hands_everything_back(wiring: Wiring, weather: Answer):
    state = archived(wiring, reading(), b"no")
    with loopback(weather) as server:
        wiring.bucket = Bucket(server.client("s3", ONCE), "bucket")
        answer = transform(state, wiring, Context())
    assert (answer["outcome"], answer["account"]["reason"]) == ("retry", "unavailable")
    assert (answer["landing_key"], answer["quarantine_key"]) == ("", "")
    assert outcome_of(answer, 2) == Outcome.all_retry(2)


def test_transform_without_a_bucket_hands_everything_back(account: Cloud, wiring: Wiring):
    state = archived(wiring, reading())
    wiring.bucket = Bucket(account.s3, "no-such-bucket")
    assert transform(state, wiring, Context())["account"]["reason"] == "misconfigured"


def test_transform_hands_back_when_the_raw_object_is_gone(wiring: Wiring):
    """A lifecycle rule deleted it: no record is to blame, and none is looked for."""
    state = archived(wiring, reading()) | {"raw_key": "raw/2026-11-24/12/0.parquet"}
    answer = transform(state, wiring, Context())
    assert (answer["outcome"], answer["account"]["reason"]) == ("retry", "gone")
    assert outcome_of(answer, 1) == Outcome.all_retry(1)


@pytest.mark.parametrize("archived_records", [1, 3])
def test_transform_raises_when_raw_holds_another_number_of_records(
    account: Cloud, wiring: Wiring, archived_records: int
):
    state = archived(wiring, reading(), b"no") | {"archived": archived_records}
    with pytest.raises(ConservationError, match=f"raw holds 2 of {archived_records}"):
        transform(state, wiring, Context())
    assert account.keys() == [state["raw_key"]]


# Hot


def test_hot_writes_the_hot_rows_and_keeps_the_account(account: Cloud, wiring: Wiring):
    state = transformed(wiring, reading(), b"no", reading(moment=NOON - MONTHS), reading())
    answer = write_hot(state, wiring, Context())
    assert answer.pop("millis") >= 0
    assert answer == {
        "outcome": "done",
        "account": state["account"],
        "written": 2,
        "refused": 0,
        "repair_rows": 0,
        "repair": "",
        "items": 1,  # the first and the last are one reading
    }
    assert len(account.items()) == 1


def test_hot_hands_back_exactly_what_the_table_refused(account: Cloud, wiring: Wiring):
    bodies = [reading(f"s-{n}") for n in range(6)]
    state = transformed(wiring, *bodies[:3], b"no", *bodies[3:])
    refuse(wiring, "s-1", "s-2", "s-4")
    answer = write_hot(state, wiring, Context())
    assert outcome_of(answer, 7) == Outcome(7, 3, 0, 1, ((1, 3), (5, 6)))
    assert (answer["outcome"], answer["account"]["reason"]) == ("retry", "hot_refused")
    assert (answer["written"], answer["refused"], answer["items"]) == (3, 3, 3)
    assert len(account.items()) == 3


def test_a_record_with_a_refused_and_a_rejected_member_goes_back(wiring: Wiring):
    """Retry is the worst of fates: the record is not also counted as quarantined."""
    mixed = aggregate([("k", reading("bad")), ("k", b"no")])
    other = aggregate([("k", reading("good")), ("k", b"no")])
    state = transformed(wiring, mixed, other, reading("good"), reading("bad", seq=1), b"no")
    assert outcome_of(state, 5) == Outcome(5, 2, 0, 3, ())
    refuse(wiring, "bad")
    assert outcome_of(write_hot(state, wiring, Context()), 5) == Outcome(
        5, 1, 0, 2, ((0, 1), (3, 4))
    )


def test_the_account_adds_up_whatever_is_refused(account: Cloud):
    """Each source record is in the one place that its members say."""
    bodies = {
        "good": lambda n: reading("good", seq=n),
        "bad": lambda n: reading("bad", seq=n),
        "no": lambda _: b"no",
        "both": lambda n: aggregate([("k", reading("bad", seq=n)), ("k", b"no")]),
        "half": lambda n: aggregate([("k", reading("good", seq=n)), ("k", b"no")]),
    }

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.sampled_from([*bodies]), min_size=1, max_size=12))
    def check(kinds: list[str]) -> None:
        wiring = account.wiring(repair_queue="")
        state = transformed(wiring, *(bodies[kind](n) for n, kind in enumerate(kinds)))
        if not state["transform"]["hot_rows"]:
            return
        refuse(wiring, "bad")
        outcome = outcome_of(write_hot(state, wiring, Context(7_000)), len(kinds))
        back = [n for n, kind in enumerate(kinds) if kind in ("bad", "both")]
        assert outcome.retry_indexes() == back
        assert outcome.delivered == kinds.count("good")
        assert outcome.quarantined == kinds.count("no") + kinds.count("half")

    check()


def test_refusals_spread_over_a_great_delivery_stay_within_the_state(wiring: Wiring):
    """Ranges are joined over gaps: some go back that need not, and the account still adds up."""
    count = 2 * RETRY_RANGES_MAX + 100
    state = transformed(wiring, *(reading("bad" if n % 2 else "good", seq=n) for n in range(count)))
    refuse(wiring, "bad")
    answer = write_hot(state, wiring, Context(7_000))
    outcome = outcome_of(answer, count)
    assert set(range(1, count, 2)) <= set(outcome.retry_indexes())
    assert len(outcome.retry) <= RETRY_RANGES_MAX
    assert len(json.dumps(answer)) < 32_768


def test_hot_gives_up_before_lambda_would_kill_it(wiring: Wiring, clock: Clock):
    """The Delivery's deadline may be minutes away: a stage's own end counts as well."""
    state = transformed(wiring, reading("bad"), reading("good"))
    assert state["deadline_ms"] / 1000 - clock.now == 100
    client = refuse(wiring, "bad")
    began = clock.now
    answer = write_hot(state, wiring, Context(20_000))
    assert clock.now - began == pytest.approx((20 - ANSWER_SECONDS) * 3 / 4)
    assert outcome_of(answer, 2) == Outcome(2, 1, 0, 0, ((0, 1),))
    assert client.calls > 3


@pytest.mark.parametrize(("seconds", "remaining_ms"), [(0, 60_000), (100, 5_999)])
def test_hot_begins_nothing_after_the_deadline(
    account: Cloud, wiring: Wiring, clock: Clock, seconds: float, remaining_ms: int
):
    state = transformed(wiring, reading(), b"no")
    state["deadline_ms"] = round((clock.now + seconds) * 1000)
    answer = write_hot(state, wiring, Context(remaining_ms))
    assert account.items() == {}
    assert (answer["written"], answer["refused"], answer["items"]) == (0, 1, 0)
    assert answer["account"]["reason"] == "deadline"
    assert outcome_of(answer, 2) == Outcome.all_retry(2)


@pytest.mark.parametrize("weather", WEATHER)
def test_hot_without_s3_hands_everything_back(account: Cloud, wiring: Wiring, weather: Answer):
    state = transformed(wiring, reading(), b"no")
    with loopback(weather) as server:
        wiring.bucket = Bucket(server.client("s3", ONCE), "bucket")
        answer = write_hot(state, wiring, Context())
    assert account.items() == {}
    assert answer["account"]["reason"] == "unavailable"
    assert outcome_of(answer, 2) == Outcome.all_retry(2)


def test_hot_without_a_table_hands_everything_back(wiring: Wiring):
    state = transformed(wiring, reading())
    with loopback(json_error(400, "ResourceNotFoundException")) as server:
        wiring.hot_table = Table(server.client("dynamodb", ONCE), "nowhere")
        answer = write_hot(state, wiring, Context())
    assert answer["account"]["reason"] == "misconfigured"
    assert outcome_of(answer, 1) == Outcome.all_retry(1)


def test_hot_that_cannot_read_what_was_set_aside_hands_everything_back(
    account: Cloud, wiring: Wiring
):
    """Without the quarantine object it cannot say whose fate is whose."""
    state = transformed(wiring, reading("bad"), reading("good"), b"no")
    refuse(wiring, "bad")

    class HalfBlind:
        def get_object(self, Bucket: str, Key: str) -> Any:  # noqa: N803
            if Key.startswith("quarantine/"):
                with loopback(s3_error(503, "SlowDown")) as server:
                    return server.client("s3", ONCE).get_object(Bucket=Bucket, Key=Key)
            return account.s3.get_object(Bucket=Bucket, Key=Key)

    wiring.bucket = Bucket(HalfBlind(), wiring.bucket.name)
    answer = write_hot(state, wiring, Context())
    assert answer["account"]["reason"] == "unavailable"
    assert outcome_of(answer, 3) == Outcome.all_retry(3)


@pytest.mark.parametrize("hot_rows", [0, 1, 3])
def test_hot_raises_when_the_landing_object_holds_another_number(wiring: Wiring, hot_rows: int):
    state = transformed(wiring, reading(), reading(seq=1))
    state["transform"]["hot_rows"] = hot_rows
    with pytest.raises(ConservationError, match=f"of {hot_rows} hot rows"):
        write_hot(state, wiring, Context())


def test_hot_raises_when_another_number_was_set_aside(wiring: Wiring):
    state = transformed(wiring, reading("bad"), reading("good"), b"no")
    refuse(wiring, "bad")
    state["account"]["quarantined"], state["account"]["delivered"] = 0, 3
    with pytest.raises(ConservationError, match="1 of 0 are set aside"):
        write_hot(state, wiring, Context())


def test_hot_hands_back_when_the_landing_object_is_gone(wiring: Wiring):
    state = transformed(wiring, reading())
    state["transform"]["landing_key"] = "landing/nothing"
    answer = write_hot(state, wiring, Context())
    assert (answer["outcome"], answer["account"]["reason"]) == ("retry", "gone")
    assert outcome_of(answer, 1) == Outcome.all_retry(1)


def test_the_landing_object_is_the_only_thing_between_the_stages(account: Cloud, wiring: Wiring):
    """Hot follows landing (law 6): what is not landed cannot become hot."""
    state = transformed(wiring, reading(), reading(seq=1))
    rows = landing.read(account.bucket, state["transform"]["landing_key"])
    write_hot(state, wiring, Context())
    landed = {digest.hex() for digest in rows.column("_digest").to_pylist()}
    assert {sk.partition("#")[2] for _, sk in account.items()} == landed


# Ranges


@SOME
@given(st.lists(st.integers(0, 300)), st.integers(1, 12))
def test_ranges_cover_every_index_and_are_few_ascending_and_disjoint(indexes: list[int], most: int):
    found = ranges(indexes, most)
    covered = {index for low, high in found for index in range(low, high)}
    assert set(indexes) <= covered
    assert len(found) <= most
    edges = [edge for span in found for edge in span]
    assert edges == sorted(set(edges))
    assert {low for low, _ in found} | {high - 1 for _, high in found} <= set(indexes)


@SOME
@given(st.sets(st.integers(0, 60)))
def test_with_room_enough_ranges_cover_nothing_else(indexes: set[int]):
    found = ranges(indexes, 61)
    assert {index for low, high in found for index in range(low, high)} == indexes


@pytest.mark.parametrize(
    ("indexes", "most", "found"),
    [
        ([], 3, ()),
        ([5], 1, ((5, 6),)),
        ([3, 1, 2, 2], 3, ((1, 4),)),
        ([0, 2, 10], 2, ((0, 3), (10, 11))),  # the smallest gap is closed
        ([0, 2, 4, 10], 3, ((0, 5), (10, 11))),  # and with it all of its width
        ([0, 9], 1, ((0, 10),)),
    ],
)
def test_the_smallest_gaps_are_closed_first(indexes: list[int], most: int, found: Any):
    assert ranges(indexes, most) == found
