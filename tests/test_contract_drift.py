"""Drift: what messages have come to hold, since when, of whom, and a contract that follows."""

from __future__ import annotations

import itertools
import json
import zlib
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
    return reading(
        device, seq=zlib.crc32(str(celsius).encode()) % 10**6, readings={"temperature": celsius}
    )


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


def rules(more: str, name: str = "telemetry") -> Contract:
    return parse_contract(TELEMETRY.source + more.encode(), name)


def test_a_field_under_another_name_gets_an_alias(made: Cloud):
    put(made, [reading(readings={"temp": 21.5}), reading(seq=1, readings={"temp": 22})])
    drift = found(made)["missing_field", "temperature"]
    changed = patched(drift)
    assert [alias.path for alias in changed.field("temperature").aliases] == [("readings", "temp")]
    assert "they have readings.temp, which could be the same; it would take 2 of 2" in drift.note


def test_a_device_under_another_name_too(made: Cloud):
    put(made, [reading(device_id=None, deviceId="x")])
    drift = found(made)["missing_field", "device_id"]
    assert [alias.path for alias in patched(drift).field("device_id").aliases] == [("deviceId",)]


def test_what_is_not_alike_is_no_alias(made: Cloud):
    put(made, [reading(readings={"gas": 21.5, "temperatures": "text"})])
    assert patched(found(made)["missing_field", "temperature"]).field("temperature").aliases == ()


def test_fields_for_which_messages_are_rejected(made: Cloud):
    strict = parse_contract(b'unknown = "reject"\n' + TELEMETRY.source, "telemetry")
    put(made, [reading(readings={"temperature": 1, "gas": 5})], rules=strict)
    drift = found(made, strict)["unknown_field", ""]
    assert patched(drift, strict).field("gas").path == ("readings", "gas")


def test_types_without_a_case(made: Cloud):
    kinds = rules('\n[choose]\npath = "kind"\n[[choose.case]]\nvalue = "a"\n')
    put(made, [reading(kind="b"), reading(seq=1, kind="c"), reading(seq=2)], rules=kinds)
    drift = found(made, kinds)["unknown_type", ""]
    assert drift.count == 3
    choose = patched(drift, kinds).choose
    assert choose is not None
    assert [set(case.values) for case in choose.cases] == [{"a"}, {"b", "c"}]


def test_empty_lists(made: Cloud):
    lists = rules(
        '\n[explode]\npath = "list"\n[[field]]\nname = "v"\ntype = "int64"\nof = "reading"\n'
    )
    put(made, [reading(list=[]), reading(seq=1, list=[{"v": 1, "w": 2}])], rules=lists)
    drifted = found(made, lists)
    explode = patched(drifted["no_readings", ""], lists).explode
    assert explode is not None
    assert explode.empty == "drop"
    assert drifted["unknown field", "w"].patch is None


def test_what_the_contract_hides_is_not_told(made: Cloud):
    secret = parse_contract(
        TELEMETRY.source.replace(b'name = "device_id"', b'name = "device_id"\nprivacy = "hash"')
        .replace(b'name = "status"', b'name = "status"\nprivacy = "redact"')
        .replace(b'name = "temperature"', b'name = "temperature"\nprivacy = "redact"'),
        "telemetry",
    )
    bodies = [reading("me", status="mine"), reading("me", seq=1, readings={"temperature": 987})]
    put(made, [*bodies, reading("me", seq=2, more=1)], rules=secret)
    for drift in found(made, secret).values():
        assert drift.devices == ()
        told = json.dumps(drift.to_json())
        assert "mine" not in told
        assert "987" not in told
        assert '"me"' not in told


def test_wrapped_messages_are_looked_into(made: Cloud):
    wrapped = rules('\n[envelope]\nunwrap = ["cloudevents"]\n')
    event = {"specversion": "1.0", "id": "1", "source": "x", "type": "reading"}
    body = json.dumps({**event, "data": json.loads(warm(150))}).encode()
    put(made, [body], rules=wrapped)
    drift = found(made, wrapped)["out_of_range", "temperature"]
    assert patched(drift, wrapped).field("temperature").maximum == 150
    assert drift.devices == ("a",)


def test_who_sent_it_is_told(made: Cloud):
    put(made, [warm(150, f"d-{number}") for number in range(9)])
    assert found(made)["out_of_range", "temperature"].devices == ("d-0", "d-1", "d-2", "d-3", "d-4")


def test_drift_as_json(made: Cloud):
    put(made, [warm(150)])
    [drift] = found(made).values()
    told = json.loads(json.dumps(drift.to_json()))
    assert told["since"] == "2026-11-24T12:00:00+00:00"
    assert told["devices"] == ["a"]
