"""Rejects by fingerprint: one cause, one group; what has a better fate is resolved."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from infra.lake import Lake
from infra.rejects import Wanted, grouped, rejects, stats
from sinks import landing, raw
from sinks.deadline import Deadline
from tests.support import NOON, SECOND, Cloud, delivery, reading
from transform.contract import Contract
from transform.contract_file import load_contract, parse_contract
from transform.pipeline import Transform

if TYPE_CHECKING:
    import pyarrow as pa

TELEMETRY = load_contract("telemetry")
LOOSE = parse_contract(TELEMETRY.source.replace(b"max = 125", b"max = 1000"), "loose")
DAY = datetime(2026, 11, 24, tzinfo=UTC)


def put(account: Cloud, bodies: list[bytes], rules: Contract = TELEMETRY, **more: int) -> None:
    until = Deadline(10**10, lambda: 0)
    given = delivery(bodies, arrival=more.get("arrival", NOON))
    given = replace(given, sequences=[str(more.get("first", 0) + n) for n in range(len(bodies))])
    key = raw.archive(account.bucket, given, until)
    batch = Transform(rules, more.get("epoch", 0)).apply(given.table(), key)
    landing.write(account.bucket, rules, batch, until)


def found(account: Cloud, **wanted: object) -> pa.Table:
    lake = Lake(account.bucket, account.ledger, [TELEMETRY])
    return rejects(lake, [TELEMETRY], Wanted(**wanted))


def hot(celsius: int) -> bytes:
    return reading(readings={"temperature": celsius})


def test_one_cause_is_one_group(account: Cloud):
    put(account, [hot(200), hot(300), b"{", b"\xff", reading(seq=1)])
    groups = grouped(found(account))
    assert {g["_reason"]: (g["rejects"], g["open"]) for g in groups} == {
        "out_of_range": (2, 2),
        "malformed_json": (1, 1),
        "not_utf8": (1, 1),
    }
    assert groups[0]["_field"] == "temperature"
    assert "200" not in groups[0]["detail"]
    assert len({g["fingerprint"] for g in groups}) == 3


def test_what_was_delivered_since_is_resolved(account: Cloud):
    put(account, [hot(200), b"{"])
    put(account, [hot(200)], LOOSE, epoch=1)
    assert [row["_reason"] for row in found(account).to_pylist()] == ["malformed_json"]
    every = found(account, resolved=True)
    assert {row["_reason"]: row["_open"] for row in every.to_pylist()} == {
        "malformed_json": True,
        "out_of_range": False,
    }
    assert {g["_reason"]: g["open"] for g in grouped(every)} == {
        "malformed_json": 1,
        "out_of_range": 0,
    }


def test_an_element_set_aside_by_several_attempts_counts_once(account: Cloud):
    put(account, [b"{", b"no"])
    put(account, [b"no", reading()], first=1)
    assert found(account).num_rows == 2


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
def test_filters(account: Cloud, wanted: dict[str, object], count: int):
    put(account, [b"{", hot(200)])
    put(account, [b"no"], first=10, arrival=NOON + 3_600 * SECOND)
    assert found(account, **wanted).num_rows == count


def test_counts_by_the_hour(account: Cloud):
    put(account, [b"{", b"no", hot(200)])
    put(account, [b"no"], first=10, arrival=NOON + 3_600 * SECOND)
    counts = [(c["hour"].hour, c["_reason"], c["rejects"]) for c in stats(found(account))]
    assert counts == [
        (12, "malformed_json", 2),
        (12, "out_of_range", 1),
        (13, "malformed_json", 1),
    ]


def test_nothing_is_set_aside(account: Cloud):
    assert grouped(found(account)) == stats(found(account)) == []
