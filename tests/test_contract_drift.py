"""Drift: what messages have come to hold, since when, of whom, and a contract that follows."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from infra.contracts.drift import Drift, drifts
from infra.lake import Lake
from sinks import landing, raw
from sinks.deadline import Deadline
from tests.support import NOON, SECOND, Cloud, cloud, delivery, reading
from transform.contract import Contract
from transform.contract_file import load_contract, parse_contract
from transform.pipeline import Transform

TELEMETRY = load_contract("telemetry")
HOUR = 3_600 * SECOND
SEQUENCES = itertools.count()


@pytest.fixture
def made() -> Iterator[Cloud]:
    with cloud() as account:
        yield account


def put(made: Cloud, bodies: list[bytes], arrival: int = NOON, rules: Contract = TELEMETRY) -> None:
    """Deliver these, each at its own position."""
    until = Deadline(10**10, lambda: 0)
    given = delivery(bodies, arrival=arrival)
    given = replace(given, sequences=[str(next(SEQUENCES)) for _ in bodies])
    key = raw.archive(made.bucket, given, until)
    landing.write(made.bucket, rules, Transform(rules).apply(given.table(), key), until)


def found(made: Cloud, rules: Contract = TELEMETRY) -> dict[tuple[str, str], Drift]:
    lake = Lake(made.bucket, made.ledger, [rules])
    return {(one.what, one.field): one for one in drifts(lake, rules)}


def patched(drift: Drift, rules: Contract = TELEMETRY) -> Contract:
    """The contract after the patch, applied by its own lines."""
    assert drift.patch is not None
    text = rules.source.decode().splitlines(keepends=True)
    out: list[str] = []
    at = 0
    for line in drift.patch.splitlines(keepends=True)[2:]:
        if line.startswith("@@"):
            start = int(line.split("-")[1].split(",")[0].split(" ")[0]) - 1
            out += text[at:start]
            at = start
        elif line.startswith("+"):
            out.append(line[1:])
        else:
            assert text[at] == line[1:]
            at += 1
            out += [] if line.startswith("-") else [line[1:]]
    return parse_contract("".join(out + text[at:]).encode(), "patched")


def plain(count: int) -> list[bytes]:
    return [reading(seq=number) for number in range(count)]


def warm(celsius: object, device: str = "a") -> bytes:
    return reading(device, seq=hash(str(celsius)) % 10**6, readings={"temperature": celsius})


def test_a_fleet_as_its_contract_says_has_no_drift(made: Cloud):
    put(made, plain(3))
    assert found(made) == {}


def test_an_unknown_field_is_told_with_its_share_since_it_came(made: Cloud):
    put(made, plain(6))
    news = [
        reading(f"d-{n}", seq=n, readings={"temperature": 20.5, "co2": 400 + n}) for n in range(3)
    ]
    put(made, [*news, reading("old", seq=9)], NOON + HOUR)
    [drift] = found(made).values()
    assert (drift.what, drift.field, drift.count) == ("unknown field", "readings.co2", 3)
    assert drift.share == 3 / 4
    assert drift.since.isoformat() == "2026-11-24T13:00:00+00:00"
    assert drift.devices == ("d-0", "d-1", "d-2")
    field = patched(drift).field("co2")
    assert (field.path, field.type, field.unit) == (("readings", "co2"), "int64", "ppm")
    assert not field.required


def test_keys_with_dots_objects_and_lists(made: Cloud):
    more = {"a.b": {"c d": 1}, "list": [{"x": 1}, 2], "null": None, "status": {"x": 1}}
    put(made, [reading(seq=1, **{k: v for k, v in more.items() if k != "status"})])
    drifted = found(made)
    assert {field for _, field in drifted} == {"a.b.c d", "list", "null"}
    assert patched(drifted["unknown field", "a.b.c d"]).field("c_d").path == ("a.b", "c d")
    assert drifted["unknown field", "list"].patch is None
    assert drifted["unknown field", "null"].note == "always null so far"


def test_a_name_that_is_taken_is_not_used_again(made: Cloud):
    put(made, [reading(seq=1, temperature=3.5)])
    [drift] = found(made).values()
    assert patched(drift).field("new_temperature").path == ("temperature",)


@pytest.mark.parametrize(
    ("body", "told", "key", "value"),
    [
        (warm(150.5), ("out_of_range", "temperature"), "maximum", 151.0),
        (warm(-70), ("out_of_range", "temperature"), "minimum", -70.0),
        (reading(status="mended"), ("not_allowed", "status"), "allowed", None),
        (reading(readings={}), ("missing_field", "temperature"), "required", False),
        (reading(seq=1.5), ("wrong_type", "sequence"), None, None),
        (reading(seq="1"), ("wrong_type", "sequence"), None, None),
        (warm("21"), ("wrong_type", "temperature"), None, None),
        (reading(ts="2026-11-24T12:00:00Z"), ("bad_timestamp", "event_time"), "format", "iso8601"),
        (reading(ts="soon"), ("bad_timestamp", "event_time"), None, None),
        (reading(moment=NOON + 1_000 * SECOND), ("future_time", "event_time"), None, None),
        (reading(moment=NOON + 100 * HOUR), ("future_time", "event_time"), None, None),
        (reading(text="x" * 9_000), ("too_large", ""), "max_body_bytes", 16_384),
        (b"{", ("malformed_json", ""), None, None),
        (reading(device_id=None), ("missing_field", "device_id"), None, None),
    ],
)
def test_a_rejection(made: Cloud, body, told, key, value):
    put(made, plain(3))
    put(made, [body])
    reason, field = told
    drift = found(made)[told]
    assert (drift.count, drift.share) == (1, 1 / 4)
    assert drift.note
    if key is None and reason != "future_time":
        assert drift.patch is None
        return
    if reason == "future_time":
        ahead = json.loads(body)["ts"] // 1_000 - NOON // SECOND
        assert (drift.patch is not None) == (ahead < 3_600)
        return
    changed = patched(drift)
    holder = changed if field == "" else changed.field(field)
    assert value is None or getattr(holder, key) == value
    assert "would take 1 of 1" in drift.note
    assert Transform(changed).apply(delivery([body]).table(), "k").counts.delivered == 1


def test_an_int_that_became_a_float_can_be_followed(made: Cloud):
    rules = parse_contract(
        TELEMETRY.source.replace(b'"seq"\ntype = "int64"', b'"s"\ntype = "int64"')
        + b'\n[[field]]\nname = "level"\ntype = "int64"\n',
        "telemetry",
    )
    put(made, [reading(s=1, level=2.5)], rules=rules)
    drift = found(made, rules)["wrong_type", "level"]
    assert patched(drift, rules).field("level").type == "float64"


def test_who_sent_it_is_told(made: Cloud):
    put(made, [warm(150, f"d-{number}") for number in range(9)])
    assert found(made)["out_of_range", "temperature"].devices == ("d-0", "d-1", "d-2", "d-3", "d-4")


def test_drift_as_json(made: Cloud):
    put(made, [warm(150)])
    [drift] = found(made).values()
    told = json.loads(json.dumps(drift.to_json()))
    assert told["since"] == "2026-11-24T12:00:00+00:00"
    assert told["devices"] == ["a"]
