"""Rejects as attempts settle: each once, by device where it can be told, and nothing private."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from infra import tail
from infra.tail import Tail, Wanted
from sinks import landing, raw
from sinks.deadline import Deadline
from sinks.ledger import Attempt
from tests.support import Cloud, cloud, delivery, reading
from transform import sender
from transform.contract_file import load_contract
from transform.pipeline import Transform

TELEMETRY = load_contract("telemetry")
HOT = {"readings": {"temperature": 1e9}}
NOTHING: dict[str, Any] = {
    one.name: () if "tuple" in one.type else 0 if one.type == "int" else ""
    for one in fields(Attempt)
}


@pytest.fixture
def made() -> Iterator[Cloud]:
    with cloud() as account:
        yield account


def attempt(made: Cloud, *bodies: bytes, second: int = 0, first: int = 100) -> Attempt:
    """An attempt at a Delivery of these bodies that settled at this second."""
    until = Deadline(10**10, lambda: 0)
    given = delivery(bodies)
    given = replace(given, sequences=[str(first + n) for n in range(len(bodies))])
    key = raw.archive(made.bucket, given, until)
    batch = Transform(TELEMETRY).apply(given.table(), key)
    landed = landing.write(made.bucket, TELEMETRY, batch, until)
    told = {"contract": "telemetry", "quarantine_key": landed.quarantine_key}
    told["settled_at"] = f"2026-11-24T12:00:{second:02}.000Z"
    return Attempt(**NOTHING | told)


def tailed(made: Cloud, *attempts: Attempt, **wanted: Any) -> list[dict[str, Any]]:
    return list(Tail(made.bucket, [TELEMETRY], Wanted(**wanted)).of(attempts))


def test_a_reject_says_where_it_is_whose_and_why(made: Cloud):
    [told] = tailed(made, attempt(made, reading(), reading("d-1", seq=2, **HOT)))
    assert told.pop("quarantine_key").startswith("quarantine/telemetry/")
    assert told == {
        "settled_at": "2026-11-24T12:00:00.000Z",
        "arrival": "2026-11-24T12:00:00Z",
        "contract": "telemetry",
        "device": "d-1",
        "partition_key": "sensor",
        "step": "check",
        "reason": "out_of_range",
        "field": "temperature",
        "detail": "readings.temperature is 1000000000.0; the contract takes -60.0 to 125.0",
        "position": "millrace/shardId-000000000000/101",
        "element": "0/0",
        "generation": Transform(TELEMETRY).generation.digest,
    }


def test_they_come_as_their_attempts_settled_and_each_once(made: Cloud):
    late, early = attempt(made, b"2", second=9), attempt(made, b"1", second=3, first=50)
    again = attempt(made, b"2", b"3", second=10)  # edges have moved
    found = tailed(made, late, early, again)
    assert [row["position"].rpartition("/")[2] for row in found] == ["50", "100", "101"]
    assert tailed(made, attempt(made, reading())) == []


def test_what_is_remembered_is_bounded(made: Cloud, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tail, "SEEN_MAX", 2)
    follower = Tail(made.bucket, [TELEMETRY], Wanted())
    assert len(list(follower.of([attempt(made, b"1", b"2", b"3")]))) == 3
    assert len(list(follower.of([attempt(made, b"3", first=102)]))) == 0
    assert len(list(follower.of([attempt(made, b"1")]))) == 1


@pytest.mark.parametrize(
    ("wanted", "sequences"),
    [
        ({"device": "d-1"}, ["100"]),
        ({"device": "sensor"}, ["101"]),
        ({"device": "d-9"}, []),
        ({"reason": "malformed_json"}, ["101"]),
        ({"reason": "out_of_range", "device": "d-2"}, ["102"]),
        ({"contract": "telemetry"}, ["100", "101", "102"]),
        ({"contract": "fleet"}, []),
        ({"since": datetime(2026, 11, 24, 12, tzinfo=UTC)}, ["100", "101", "102"]),
        ({"since": datetime(2026, 11, 24, 12, 0, 1, tzinfo=UTC)}, []),
    ],
)
def test_only_what_is_wanted(made: Cloud, wanted: dict[str, Any], sequences: list[str]):
    """What cannot be read is of its partition key, and what can be is of its device alone."""
    one = attempt(made, reading("d-1", **HOT), b"{", reading("d-2", seq=2, **HOT))
    found = tailed(made, one, **wanted)
    assert [row["position"].rpartition("/")[2] for row in found] == sequences


def test_what_is_private_is_not_printed(made: Cloud, monkeypatch: pytest.MonkeyPatch):
    private = {"device_id", "temperature"}
    for module in (sender, tail):
        monkeypatch.setattr(module, "may_be_told", lambda spec: spec.name not in private)
    [told] = tailed(made, attempt(made, reading("d-1", **HOT)), device="d-1")
    assert (told["device"], told["partition_key"], told["detail"]) == (None, None, "")


def test_rejects_of_a_contract_that_is_gone_are_told_by_their_key(made: Cloud):
    one = attempt(made, reading("d-1", **HOT))
    [told] = Tail(made.bucket, [], Wanted(device="sensor")).of([one])
    assert (told["device"], told["reason"]) == (None, "out_of_range")
