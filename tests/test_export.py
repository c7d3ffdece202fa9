"""A device's records of a span: what `records` says, and nothing else is read."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import pytest

from infra.lake import Lake, plain
from sinks import landing, raw
from sinks.deadline import Deadline
from sinks.lake import compact, manifest
from sinks.lake.plan import UNKNOWN, Object, Plan
from tests.support import NOON, SECOND, Clock, Cloud, delivery, reading
from transform.contract_file import load_contract
from transform.pipeline import Transform

if TYPE_CHECKING:
    import pyarrow as pa

TELEMETRY = load_contract("telemetry")
HOUR = 3_600 * SECOND
EVER = (0, 2 * NOON)


def deliver(account: Cloud, *bodies: bytes, first: int = 100, epoch: int = 0) -> None:
    """One attempt at a Delivery of these bodies, at the positions from `first` on."""
    until = Deadline(Clock()() + 60, Clock())
    given = delivery(bodies, NOON + 4 * HOUR)
    given = replace(given, sequences=[str(first + number) for number in range(len(bodies))])
    key = raw.archive(account.bucket, given, until)
    batch = Transform(TELEMETRY, epoch).apply(given.table(), key)
    landing.write(account.bucket, TELEMETRY, batch, until)


def compacted(account: Cloud) -> None:
    keys = [key for prefix in manifest.sources("telemetry") for key in account.keys(prefix)]
    objects = tuple(Object(key, UNKNOWN) for key in keys)
    compact.compact(account.bucket, TELEMETRY, Plan(objects, 0))


def exported(account: Cloud, low: int, high: int, device: str = "sensor-1") -> pa.Table:
    return Lake(account.bucket, account.ledger, [TELEMETRY]).of_device(TELEMETRY, device, low, high)


def shown(rows: pa.Table) -> list[str]:
    return sorted(json.dumps(row, sort_keys=True) for row in plain(rows))


def records(account: Cloud, low: int, high: int, device: str = "sensor-1") -> pa.Table:
    rows = Lake(account.bucket, account.ledger, [TELEMETRY]).query("FROM records")
    moments = rows.column("event_time").cast("int64")
    inside = pc.and_(pc.greater_equal(moments, low), pc.less(moments, high))
    return rows.filter(pc.and_(inside, pc.equal(rows.column("device_id"), device)))


@pytest.fixture
def fleet(account: Cloud) -> Cloud:
    """Four hours of two devices: some in the lake, some fresh, repeats, other rules for some."""
    hours = [reading(d, NOON + h * HOUR, seq=h) for d in ("sensor-1", "o'b") for h in range(4)]
    deliver(account, *hours)
    compacted(account)
    deliver(account, hours[1], reading(moment=NOON + 2 * HOUR, seq=9), first=500)
    deliver(account, *hours[3:5], first=103, epoch=1)
    return account


@pytest.mark.parametrize(
    ("low", "high", "rows"),
    [
        (*EVER, 5),
        (NOON, NOON + HOUR, 1),
        (NOON, NOON + HOUR + 1, 2),
        (NOON + 1, NOON + 3 * HOUR, 3),
        (NOON + 2 * HOUR, NOON + 2 * HOUR + 1, 2),
        (NOON + 4 * HOUR, NOON + 9 * HOUR, 0),
    ],
)
def test_it_is_what_records_says(fleet: Cloud, low: int, high: int, rows: int) -> None:
    found = exported(fleet, low, high)
    assert found.num_rows == rows
    assert shown(found) == shown(records(fleet, low, high))
    assert found.column("event_time").to_pylist() == sorted(found.column("event_time").to_pylist())
    compacted(fleet)
    assert shown(exported(fleet, low, high)) == shown(found)


def test_a_device_is_text_and_no_sql(fleet: Cloud) -> None:
    assert exported(fleet, *EVER, "o'b").num_rows == 4
    assert exported(fleet, *EVER, "' OR true --").num_rows == 0


def test_files_of_other_hours_are_not_read(fleet: Cloud) -> None:
    compacted(fleet)
    read: Counter[str] = Counter()

    def count(params: dict[str, Any], **_: Any) -> None:
        read["/".join(params["Key"].split("/")[2:5])] += 1

    fleet.s3.meta.events.register("provide-client-params.s3.GetObject", count)
    exported(fleet, NOON + HOUR, NOON + 2 * HOUR)
    assert {name for name in read if name.startswith("data/")} == {"data/2026-11-24/13"}


def test_of_an_hour_whose_other_elements_lie_elsewhere_one_generation_counts(
    account: Cloud,
) -> None:
    """Law 5 is asked of whole positions, whatever hours are asked for."""
    deliver(account, reading(seq=1), reading(seq=2, moment=NOON + HOUR))
    compacted(account)
    deliver(account, b"no", first=100, epoch=1)
    assert shown(exported(account, *EVER)) == shown(records(account, *EVER))
    assert exported(account, NOON, NOON + HOUR).num_rows == 0
