"""What producers are told: each kind of reject of a Delivery, bounded, and nothing private."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import feed
from ingest.feed import summary
from ingest.workflow import STATE_BYTES_MAX
from tests.support import NOON, SOME, delivery, reading
from transform import sender
from transform.contract_file import load_contract
from transform.pipeline import Transform
from transform.records import DIGEST_BYTES, QUARANTINE_SCHEMA

CONTRACT = load_contract("telemetry")
HOT = {"readings": {"temperature": 1e9}}
Event = dict[str, Any]


def rejects(*bodies: bytes, first: int = 0, raw_key: str = "raw/x") -> pa.Table:
    """The quarantine table of a Delivery of these bodies."""
    return Transform(CONTRACT).apply(delivery(bodies).table(), raw_key, first).rejects


def events(*bodies: bytes) -> list[Event]:
    found = summary(rejects(*bodies), CONTRACT)
    assert found["untold"] == 0
    return list(found["rejected"])


def test_nothing_is_said_of_a_delivery_without_rejects():
    assert summary(rejects(reading()), CONTRACT) == {"rejected": [], "untold": 0}


def test_each_kind_is_one_event_the_most_frequent_first():
    found = events(reading(), b"no", reading("a", **HOT), reading("b", seq=2, **HOT))
    assert [(e["step"], e["reason"], e.get("field"), e["count"]) for e in found] == [
        ("check", "out_of_range", "temperature", 2),
        ("decode", "malformed_json", None, 1),
    ]
    assert found[0]["version"] == Transform(CONTRACT).generation.version
    assert found[0]["generation"] == Transform(CONTRACT).generation.digest


def test_an_example_says_where_it_is_whose_and_what_is_wrong():
    (event,) = events(reading("sensor-7", **HOT))
    (example,) = event["examples"]
    assert example == {
        "shard": "shardId-000000000000",
        "sequence": "100",
        "sub": 0,
        "child": 0,
        "detail": "readings.temperature is 1000000000.0; the contract takes -60.0 to 125.0",
        "device": "sensor-7",
    }


@pytest.mark.parametrize(
    "body",
    [
        *(b"no", b"\xff", b"[1]", b'{"device_id": 7}', b'{"device_id": ""}'),
        b'{"device_id": "\\u0007"}',
        b'{"device_id": "%s"}' % (b"x" * 400),
        b'{"device_id": "%s"}' % (b"x" * 2_000),
    ],
)
def test_a_device_that_cannot_be_read_or_told_is_left_out(body: bytes):
    (event,) = events(body)
    assert "device" not in event["examples"][0]


def test_what_kills_transform_is_not_opened():
    raw = delivery([reading("a")]).table()
    found = summary(Transform(CONTRACT).unread(raw, "raw/x", 0, "died").rejects, CONTRACT)
    (event,) = found["rejected"]
    assert (event["reason"], event["generation"], event["version"]) == ("killer", "unread", 0)
    assert "device" not in event["examples"][0]


def test_a_private_value_is_told_to_nobody(monkeypatch: pytest.MonkeyPatch):
    private = {"device_id", "temperature"}
    monkeypatch.setattr(sender, "may_be_told", lambda spec: spec.name not in private)
    monkeypatch.setattr(feed, "may_be_told", lambda spec: spec.name not in private)
    (event,) = events(reading("secret-device", **HOT))
    assert event["field"] == "temperature"
    assert event["examples"][0]["detail"] == ""
    assert "secret" not in json.dumps(event)
    assert "1000000000" not in json.dumps(event)


def test_the_same_rejects_have_the_same_id_whatever_object_they_are_in():
    bodies = [b"no", reading("a", **HOT), b"no more"]
    before = summary(rejects(*bodies), CONTRACT)["rejected"]
    again = summary(rejects(*bodies, first=7, raw_key="raw/replayed"), CONTRACT)["rejected"]
    assert [e["id"] for e in before] == [e["id"] for e in again]
    assert len({e["id"] for e in before}) == 2
    fewer = summary(rejects(*bodies[:2]), CONTRACT)["rejected"]
    assert {e["id"] for e in fewer} & {e["id"] for e in before} == {before[1]["id"]}
    later = Transform(CONTRACT, epoch=1).apply(delivery(bodies).table(), "raw/x").rejects
    assert not {e["id"] for e in summary(later, CONTRACT)["rejected"]} & {e["id"] for e in before}


TEXTS = st.one_of(
    st.text(max_size=30), st.sampled_from(["\U0001f600", "\x00", '"', "x", "é"]).map("".join)
).flatmap(lambda text: st.integers(1, 400).map(lambda times: text * times))


@SOME
@given(
    kinds=st.lists(
        st.tuples(st.sampled_from(["decode", "check"]), TEXTS, st.none() | TEXTS, TEXTS),
        min_size=1,
        max_size=40,
    ),
    times=st.integers(1, 12),
    device=TEXTS,
)
def test_whatever_is_rejected_the_summary_is_bounded_and_what_is_cut_is_counted(
    kinds: list[tuple[str, str, str | None, str]], times: int, device: str
):
    rows = [
        {
            "_step": step,
            "_reason": reason,
            "_field": field,
            "_detail": detail,
            "_body": json.dumps({"device_id": device}).encode(),
            "_digest": bytes(DIGEST_BYTES),
            "_contract": CONTRACT.name,
            "_stream": "s" * 128,
            "_shard": "shardId-000000000000",
            "_sequence": "9" * 128,
            "_arrival": NOON,
            "_raw": "raw/x",
            "_index": number,
            "_sub": number,
            "_child": 0,
            "_elements": 1,
            "_epoch": 0,
            "_version": 10**18,
            "_generation": "g" * 16,
        }
        for number, (step, reason, field, detail) in enumerate(kinds * times)
    ]
    table = pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA)
    found = summary(table, CONTRACT)
    told = found["rejected"]
    assert len(json.dumps(told)) <= feed.SUMMARY_BYTES_MAX + 2 * feed.EVENTS_MAX
    assert len(json.dumps(told)) < STATE_BYTES_MAX / 3
    assert len(told) <= feed.EVENTS_MAX
    assert sum(event["count"] for event in told) + found["untold"] == len(rows)
    counts = Counter((row["_step"], row["_reason"], row["_field"]) for row in rows)
    for event in told:
        assert counts[event["step"], event["reason"], event.get("field")] == event["count"]
        assert len(event["examples"]) == min(event["count"], feed.EXAMPLES_MAX)
        assert all(len(json.dumps(e["detail"])) <= 300 for e in event["examples"])


def test_ten_ordinary_kinds_with_their_examples_fit():
    """The bound of bytes is for the odd: what a contract's own details come to stays below it."""
    rows = rejects(*[reading(f"sensor-{n}", seq=n, **HOT) for n in range(5)])
    one = summary(rows, CONTRACT)["rejected"][0]
    assert len(json.dumps(one)) * feed.EVENTS_MAX < feed.SUMMARY_BYTES_MAX / 2


def test_text_that_is_cut_says_how_much():
    assert feed._cut("x" * 298, 300) == "x" * 298
    cut = feed._cut("x" * 299, 300)
    head, _, more = cut.partition("… (+")
    assert len(head) + int(more.removesuffix(")")) == 299


def test_a_contract_keeps_its_private_fields_to_itself():
    assert all(sender.may_be_told(spec) for spec in CONTRACT.fields)
    private = replace(CONTRACT.fields[0])
    object.__setattr__(private, "privacy", "hash")
    assert not sender.may_be_told(private)
