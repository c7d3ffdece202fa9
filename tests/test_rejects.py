"""Rejects by fingerprint: one cause, one group; what has a better fate is resolved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from infra.lake import Lake
from infra.rejects import Wanted, grouped, rejects, stats
from sinks import landing, raw
from sinks.deadline import Deadline
from tests.support import NOON, SECOND, Cloud, cloud, delivery, reading
from transform.contract import Contract
from transform.contract_file import load_contract, parse_contract
from transform.pipeline import Transform

if TYPE_CHECKING:
    import pyarrow as pa

TELEMETRY = load_contract("telemetry")
LOOSE = parse_contract(TELEMETRY.source.replace(b"max = 125", b"max = 1000"), "loose")
DAY = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.fixture
def made() -> Iterator[Cloud]:
    with cloud() as account:
        yield account


def put(made: Cloud, bodies: list[bytes], rules: Contract = TELEMETRY, **more: int) -> None:
    until = Deadline(10**10, lambda: 0)
    given = delivery(bodies, arrival=more.get("arrival", NOON))
    given = replace(given, sequences=[str(more.get("first", 0) + n) for n in range(len(bodies))])
    key = raw.archive(made.bucket, given, until)
    batch = Transform(rules, more.get("epoch", 0)).apply(given.table(), key)
    landing.write(made.bucket, rules, batch, until)


def found(made: Cloud, **wanted: object) -> pa.Table:
    lake = Lake(made.bucket, made.ledger, [TELEMETRY])
    return rejects(lake, [TELEMETRY], Wanted(**wanted))


def hot(celsius: int) -> bytes:
    return reading(readings={"temperature": celsius})


def test_one_cause_is_one_group(made: Cloud):
    put(made, [hot(200), hot(300), b"{", b"\xff", reading(seq=1)])
    groups = grouped(found(made))
    assert {g["_reason"]: (g["rejects"], g["open"]) for g in groups} == {
        "out_of_range": (2, 2),
        "malformed_json": (1, 1),
        "not_utf8": (1, 1),
    }
    assert groups[0]["_field"] == "temperature"
    assert "200" not in groups[0]["detail"]
    assert len({g["fingerprint"] for g in groups}) == 3


def test_what_was_delivered_since_is_resolved(made: Cloud):
    put(made, [hot(200), b"{"])
    put(made, [hot(200)], LOOSE, epoch=1)
    assert [row["_reason"] for row in found(made).to_pylist()] == ["malformed_json"]
    every = found(made, resolved=True)
    assert {row["_reason"]: row["_open"] for row in every.to_pylist()} == {
        "malformed_json": True,
        "out_of_range": False,
    }
    assert {g["_reason"]: g["open"] for g in grouped(every)} == {
        "malformed_json": 1,
        "out_of_range": 0,
    }


def test_an_element_set_aside_by_several_attempts_counts_once(made: Cloud):
    put(made, [b"{", b"no"])
    put(made, [b"no", reading()], first=1)
    assert found(made).num_rows == 2


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({}, 3),
        ({"contract": "telemetry"}, 3),
        ({"contract": "other"}, 0),
        ({"reason": "malformed_json"}, 2),
        ({"field": "temperature"}, 1),
        ({"start": DAY + timedelta(hours=13)}, 1),
        ({"stop": DAY + timedelta(hours=13)}, 2),
        ({"start": DAY + timedelta(hours=12), "stop": DAY + timedelta(hours=13)}, 2),
    ],
)
def test_filters(made: Cloud, wanted: dict[str, object], count: int):
    put(made, [b"{", hot(200)])
    put(made, [b"no"], first=10, arrival=NOON + 3_600 * SECOND)
    assert found(made, **wanted).num_rows == count


def test_counts_by_the_hour(made: Cloud):
    put(made, [b"{", b"no", hot(200)])
    put(made, [b"no"], first=10, arrival=NOON + 3_600 * SECOND)
    counts = [(c["hour"].hour, c["_reason"], c["rejects"]) for c in stats(found(made))]
    assert counts == [
        (12, "malformed_json", 2),
        (12, "out_of_range", 1),
        (13, "malformed_json", 1),
    ]


def test_nothing_is_set_aside(made: Cloud):
    assert grouped(found(made)) == stats(found(made)) == []
