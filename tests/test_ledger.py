"""The state machine writes attempts and this module reads them: both agree to the attribute."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.fates import Follower
from infra.topology import WORKFLOWS
from sinks import ledger
from sinks.bucket import Bucket
from sinks.ledger import BUCKETS, Attempt
from tests.support import NOON, SOME, TOPOLOGY, Cloud, evaluated

MACHINE = json.loads((WORKFLOWS / TOPOLOGY.workflow.definition).read_text())
SETTLE = MACHINE["States"]["Settle"]["Arguments"]
EXECUTION = "arn:aws:states:us-east-1:123456789012:express:millrace-telemetry-batch:e:1"


def state(**account: Any) -> dict[str, Any]:
    """The state as it comes to Settle after a Hot stage that was refused two records."""
    counts = {"delivered": 5, "dropped": 0, "quarantined": 1}
    told = {"outcome": "retry", "reason": "hot_refused", **counts, "retry": "[[0, 1], [4, 5]]"}
    return {
        "pipeline": "millrace-telemetry",
        "stream": "millrace",
        "shard": "shardId-000000000001",
        "first_arrival": "1795521600000001",
        "last_arrival": "1795521601234567",
        "raw_key": "raw/2026-11-24/12/00ff.parquet",
        "archived": 20,
        "first": 12,
        "received": 8,
        "ledger_bucket": 3,
        "epoch": 0,
        "deadline_ms": 1,
        "transform": {
            "outcome": "done",
            "contract": "telemetry",
            "version": 1_000_001_000,
            "generation": "0123456789abcdef",
            "landing_key": "landing/telemetry/x",
            "landing_rows": 70,
            "landing_bytes": 12_345,
            "quarantine_key": "",
            "quarantine_rows": 0,
            "dropped_key": "dropped/telemetry/y",
            "dropped_rows": 2,
            "hot_rows": 60,
            "millis": 12.5,
        },
        "hot": {"written": 57, "refused": 3, "repair_rows": 1, "repair": "d1 d2"},
        "account": told | account,
    }


def settled(at: str = "2026-11-24T12:00:59.999Z", **changes: Any) -> dict[str, Any]:
    """The item that Settle puts for this state."""
    states = {
        "input": state() | changes,
        "context": {"State": {"EnteredTime": at}, "Execution": {"Id": EXECUTION}},
    }
    item: dict[str, Any] = evaluated(SETTLE["Item"], states)
    return item


# The item


def test_the_item_has_exactly_the_attributes_that_an_attempt_reads():
    names = set(Attempt.__annotations__) - {"execution"}
    assert set(SETTLE["Item"]) == names | {"pk", "sk"}
    for name in names - {"retry"}:
        kind = "N" if Attempt.__annotations__[name] == "int" else "S"
        assert list(SETTLE["Item"][name]) == [kind], name


def test_an_item_comes_back_as_the_attempt_it_was():
    assert ledger.attempt(settled()) == Attempt(
        execution=EXECUTION,
        settled_at="2026-11-24T12:00:59.999Z",
        pipeline="millrace-telemetry",
        contract="telemetry",
        stream="millrace",
        shard="shardId-000000000001",
        raw_key="raw/2026-11-24/12/00ff.parquet",
        archived=20,
        first_arrival=1_795_521_600_000_001,
        last_arrival=1_795_521_601_234_567,
        outcome="retry",
        reason="hot_refused",
        epoch=0,
        version=1_000_001_000,
        generation="0123456789abcdef",
        first=12,
        received=8,
        delivered=5,
        dropped=0,
        quarantined=1,
        retry=((0, 1), (4, 5)),
        landing_key="landing/telemetry/x",
        landing_rows=70,
        landing_bytes=12_345,
        quarantine_key="",
        quarantine_rows=0,
        dropped_key="dropped/telemetry/y",
        dropped_rows=2,
        hot_rows=60,
        hot_written=57,
        repair_rows=1,
        repair=("d1", "d2"),
    )


def test_what_no_mapping_brought_has_no_shard_and_no_arrivals():
    input_ = state()
    for name in (told := ("shard", "first_arrival", "last_arrival")):
        del input_[name]
    states = {"input": input_, "context": {"State": {"EnteredTime": "2026-11-24T12:00:00Z"}}}
    item = {name: evaluated(SETTLE["Item"][name], states) for name in told}
    assert item == {"shard": {"S": ""}, "first_arrival": {"N": "0"}, "last_arrival": {"N": "0"}}


def test_an_item_from_before_arrivals_were_told_is_read():
    item = settled()
    for name in ("shard", "archived", "first_arrival", "last_arrival"):
        del item[name]
    read = ledger.attempt(item)
    assert (read.shard, read.archived, read.first_arrival, read.last_arrival) == ("", 0, 0, 0)


def test_without_a_hot_stage_nothing_was_written_hot():
    input_ = state()
    del input_["hot"]
    states = {
        "input": input_,
        "context": {
            "State": {"EnteredTime": "2026-11-24T12:00:00Z"},
            "Execution": {"Id": EXECUTION},
        },
    }
    assert evaluated(SETTLE["Item"]["hot_written"], states) == {"N": "0"}


@pytest.mark.parametrize("text", ["[]", "[[0, 1]]", "[[0, 5], [7, 9]]"])
def test_ranges_travel_as_text(text: str):
    attempt = ledger.attempt(settled(account=state(retry=text)["account"]))
    assert json.dumps(attempt.retry) == text


def test_an_attempt_is_partitioned_by_its_minute_and_bucket():
    item = settled()
    assert item["pk"] == {"S": "2026-11-24T12:00#3"}
    assert item["sk"] == {"S": EXECUTION}


def test_an_attempt_never_replaces_another(account: Cloud):
    assert SETTLE["ConditionExpression"] == "attribute_not_exists(pk)"
    condition = {"ConditionExpression": SETTLE["ConditionExpression"]}
    account.dynamodb.put_item(TableName=account.ledger.name, Item=settled(), **condition)
    with pytest.raises(account.dynamodb.exceptions.ConditionalCheckFailedException):
        account.dynamodb.put_item(TableName=account.ledger.name, Item=settled(), **condition)
    assert len(list(ledger.attempts(account.ledger))) == 1


# Buckets


@SOME
@given(st.binary(max_size=20))
def test_every_raw_object_has_a_bucket(data: bytes):
    class Client:
        def put_object(self, **_: Any) -> None:
            """Take it."""

    key = Bucket(Client(), "bucket").put_once("raw", NOON, data)
    assert 0 <= ledger.bucket_of(key) < BUCKETS


def test_buckets_are_used_evenly():
    keys = [f"raw/2026-11-24/12/{n * 2_654_435_761 % 2**32:08x}.parquet" for n in range(4_000)]
    used = Counter(map(ledger.bucket_of, keys))
    assert len(used) == BUCKETS
    assert min(used.values()) > 400


# Finding attempts


def settle(account: Cloud, at: datetime, bucket: int = 0, execution: str = "1") -> None:
    utc = at.astimezone(UTC)
    item = settled(f"{utc:%Y-%m-%dT%H:%M:%S}.000Z", ledger_bucket=bucket)
    account.dynamodb.put_item(
        TableName=account.ledger.name, Item=item | {"sk": {"S": f"{EXECUTION}{execution}"}}
    )


def found(account: Cloud, since: datetime, until: datetime) -> list[str]:
    return [a.settled_at[11:19] for a in ledger.settled_since(account.ledger, since, until)]


def test_attempts_are_found_by_the_minutes_they_settled_in(account: Cloud):
    noon = datetime(2026, 11, 24, 12, tzinfo=UTC)
    for second in (-1, 0, 59, 60, 119, 120, 180):
        settle(account, noon + timedelta(seconds=second), execution=str(second))
    assert found(account, noon, noon) == ["12:00:00", "12:00:59"]
    both = found(account, noon + timedelta(seconds=30), noon + timedelta(seconds=119))
    assert sorted(both) == ["12:00:00", "12:00:59", "12:01:00", "12:01:59"]
    assert found(account, noon + timedelta(minutes=1), noon) == []


def test_attempts_are_found_in_every_bucket_and_once(account: Cloud):
    noon = datetime(2026, 11, 24, 12, tzinfo=UTC)
    for bucket in range(BUCKETS):
        for execution in "ab":
            settle(account, noon, bucket, execution)
    assert len(found(account, noon, noon)) == 2 * BUCKETS
    assert len(list(ledger.attempts(account.ledger))) == 2 * BUCKETS


def test_a_follower_finds_each_attempt_once_however_late_it_is_told(account: Cloud):
    """Past minutes are looked at seldom, but they are."""
    noon = datetime(2026, 11, 24, 12, tzinfo=UTC)
    now = noon
    follower = Follower(account.ledger, noon, lambda: now)

    def found_at(second: int) -> list[str]:
        nonlocal now
        now = noon + timedelta(seconds=second)
        return [attempt.settled_at[14:19] for attempt in follower.follow()]

    assert found_at(57) == []
    settle(account, noon + timedelta(seconds=59), execution="soon")
    assert found_at(61) == ["00:59"]
    assert found_at(63) == []
    settle(account, noon + timedelta(seconds=58), execution="late")
    settle(account, noon + timedelta(seconds=64), execution="next")
    assert found_at(65) == ["01:04"]
    assert found_at(69) == ["00:58"]
    assert found_at(90) == []


def test_a_search_goes_over_midnight_and_time_zones(account: Cloud):
    midnight = datetime(2026, 11, 25, tzinfo=UTC)
    settle(account, midnight - timedelta(seconds=1), execution="a")
    settle(account, midnight, execution="b")
    west = timezone(timedelta(hours=-8))
    since = (midnight - timedelta(minutes=1)).astimezone(west)
    assert found(account, since, midnight.astimezone(west)) == ["23:59:59", "00:00:00"]
