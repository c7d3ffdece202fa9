"""What comes out of a source record: whatever the layers, exactly the messages, in their places."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transform.contract_file import load_contract
from transform.envelope import (
    ELEMENT_BYTES_MIN,
    ELEMENTS_ALWAYS,
    JSON,
    LAYERS_MAX,
    OPENED_BYTES_ALWAYS,
    OPENED_RATIO_MAX,
    Envelope,
    Opened,
    open_record,
    plain,
)
from transform.kpl import KPL_MAGIC, aggregate
from transform.pipeline import Transform
from transform.records import Delivery, Source
from transform.sequences import ARRAY_NESTING_MAX, BOM

SOME = settings(max_examples=100, deadline=None)
LINES = Envelope(body="ndjson")
ALL = Envelope(unwrap=("sns", "eventbridge", "cloudevents"))


def opened(body: bytes, envelope: Envelope = JSON, source: Source = "kinesis") -> Opened:
    found = open_record(body, "group", None, source, envelope, 5)
    places = list(zip(found.subs, found.children, strict=True))
    places += [(reject.sub, reject.child) for reject in found.rejects]
    assert len(set(places)) == len(places) > 0
    for sub in {sub for sub, _ in places}:
        children = sorted(child for of, child in places if of == sub)
        assert children == list(range(len(children)))
    sizes = {len(column) for column in vars(found).values() if column is not found.rejects}
    assert sizes == {len(found.bodies)}
    return found


def messages(body: bytes, envelope: Envelope = JSON) -> list[bytes]:
    found = opened(body, envelope)
    assert not found.rejects
    return found.bodies


def refused(body: bytes, envelope: Envelope = JSON) -> tuple[str, str]:
    """Step and reason of the one rejection that all of `body` comes to."""
    found = opened(body, envelope)
    (reject,) = found.rejects
    assert (found.bodies, reject.body) == ([], body)
    return reject.rejection.step, reject.rejection.reason


def zstd(body: bytes) -> bytes:
    return bytes(pa.compress(body, codec="zstd", asbytes=True))


# Whatever the layers

PACKINGS = {
    "gzip": gzip.compress,
    "gzip of two members": lambda b: (
        gzip.compress(b[: len(b) // 2]) + gzip.compress(b[len(b) // 2 :])
    ),
    "gzip, padded": lambda b: gzip.compress(b) + b"\0" * 7,
    "zstd": zstd,
    "zstd of two frames": lambda b: zstd(b[: len(b) // 2]) + zstd(b[len(b) // 2 :]),
    "base64": base64.b64encode,
    "base64 in lines": base64.encodebytes,
    "base64 for URLs": base64.urlsafe_b64encode,
    "base64 without padding": lambda b: base64.b64encode(b).rstrip(b"="),
}
BASE64 = {name for name in PACKINGS if name.startswith("base64")}


@dataclass(frozen=True)
class Packed:
    body: bytes
    inside: list[bytes]


def text_of(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=9) | st.booleans(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
SINGLE = st.dictionaries(st.text(max_size=4), VALUES, max_size=4).map(text_of)


def as_array(bodies: list[bytes]) -> bytes:
    return b" [\n " + b" ,\t".join(bodies) + b"\r\n] \n"


def as_lines(bodies: list[bytes]) -> bytes:
    return BOM + b"\n" + b"\r\n \t\n".join(bodies) + b" \n\n"


def as_text_sequence(bodies: list[bytes]) -> bytes:
    return b"".join(b"\x1e" + body + b"\n" for body in bodies)


@st.composite
def packed(draw: st.DrawFn) -> Packed:
    """One message or a sequence of them, in up to four layers."""
    inside = draw(st.lists(SINGLE, min_size=1, max_size=6))
    sequences = [as_array, as_text_sequence]
    if len(inside) > 1:
        sequences.append(as_lines)
    whole = len(inside) == 1 and draw(st.booleans())
    body = inside[0] if whole else draw(st.sampled_from(sequences))(inside)
    layers = draw(st.lists(st.sampled_from(list(PACKINGS)), max_size=LAYERS_MAX))
    before = ""
    for layer in layers:
        if layer in BASE64 and (before in BASE64 or len(body) < 6):
            continue  # base64 of base64, and of next to nothing, is a text like any other
        body, before = PACKINGS[layer](body), layer
    return Packed(body, inside)


@SOME
@given(packed())
def test_the_messages_come_out_as_they_went_in(record: Packed):
    found = opened(record.body)
    assert (found.bodies, found.rejects) == (record.inside, [])
    assert list(found.subs) == [0] * len(record.inside)
    assert found.groups == ["group"] * len(record.inside)


@SOME
@given(st.lists(packed(), min_size=1, max_size=5), st.sampled_from(["no", *BASE64]))
def test_the_members_of_an_aggregate_are_opened_each_for_itself(records: list[Packed], coat: str):
    keys = [f"key {number}" for number in range(len(records))]
    body = aggregate(zip(keys, (record.body for record in records), strict=True))
    found = opened(PACKINGS[coat](body) if coat in BASE64 else body)
    assert found.bodies == [inside for record in records for inside in record.inside]
    places = [
        (sub, child, keys[sub])
        for sub, record in enumerate(records)
        for child in range(len(record.inside))
    ]
    assert list(zip(found.subs, found.children, found.groups, strict=True)) == places


@SOME
@given(st.lists(SINGLE, min_size=1, max_size=6))
def test_declared_lines_are_messages_whatever_they_are(bodies: list[bytes]):
    assert messages(as_lines(bodies), LINES) == bodies
    broken = [b'{"a":', *bodies, b"no"]
    assert messages(as_lines(broken), LINES) == broken


@SOME
@given(packed(), st.integers(0, 10**9), st.binary(min_size=1, max_size=3), st.integers(0, 3))
def test_bent_bodies_always_come_to_something(record: Packed, where: int, other: bytes, lost: int):
    at = where % (len(record.body) + 1)
    opened(record.body[:at])
    bent = record.body[:at] + other + record.body[at + lost :]
    for envelope in (JSON, LINES, ALL):
        opened(bent, envelope)
        opened(aggregate([("k", bent), ("l", record.body)]), envelope)


STARTS = [b"", b"[", b"{", b'{"a":1}\n', b"\x1e", BOM, b'{"specversion":"1.0","data":', b"[[1],"]
PACKED_STARTS = [b"\x1f\x8b", b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd", b"eyJh", b"H4sI", b"84maw"]
PIECES = st.binary(max_size=60) | st.text('[]{}",\n \x1e1a', max_size=60).map(str.encode)


@SOME
@given(st.sampled_from([*STARTS, *PACKED_STARTS, KPL_MAGIC]), PIECES)
@example(b"", b"")
def test_any_bytes_come_to_something(start: bytes, rest: bytes):
    for envelope in (JSON, LINES, ALL):
        opened(start + rest, envelope)


@SOME
@given(st.sampled_from(STARTS), PIECES)
@example(b"[1,2]", b"")
def test_nothing_is_lost_but_what_separates(start: bytes, rest: bytes):
    body = start + rest
    for envelope in (JSON, LINES):
        found = opened(body, envelope, "sqs")
        if found.rejects:
            assert [reject.body for reject in found.rejects] == [body]
            continue
        at, between = 0, b""
        for element in found.bodies:
            begin = body.index(element, at)
            between += body[at:begin]
            at = begin + len(element)
        assert not (between + body[at:]).strip(b" \t\r\n,[]\x1e" + BOM)


@SOME
@given(st.binary(max_size=40) | SINGLE | packed().map(lambda record: record.body))
@example(b'{"a":1}\n')
@example(b'{"a":1}\n{"a":2}')
@example(b'{"a":1}\n\n')
def test_what_is_plain_is_its_own_message(body: bytes):
    if plain(body, JSON):
        assert messages(body) == [body]
    assert not plain(body, ALL)
    assert not plain(body, LINES)


def test_the_ordinary_record_is_plain():
    assert plain(b'{"a":1}', JSON)
    assert plain(b'{"a":1}\r\n', Envelope())
    assert not plain(b'{"a":1}\n{"a":2}', JSON)


# Sequences


@pytest.mark.parametrize(
    "body",
    [
        b'{\n  "a": 1\n}',
        b'{"a":{"b":1}\n,"c":2}',
        b'{"a":{}\n,"c":NaN}',
        b'{"a":1}{"b":2}',
        b'{"a":1}\n \n',
        b'{"a":"}\n"}',
        b'{"a":1',
        b"[1",
        b"[1]]",
        b'[{"a":NaN}] x',
        b'[{"a":NaN}',
        b'[{"a":"NaN}]',
        b'["a":NaN}',
        b"[{]},1]",
        b"1\n2",
        b'"x"\n"y"',
        b"",
        b" \n ",
        b"null",
        BOM + b'{"a":1}',
    ],
)
def test_what_is_no_sequence_stays_whole(body: bytes):
    assert messages(body) == [body]


def test_lines_are_seen_by_the_first():
    assert messages(b'{"a":1}\nno\n{"b":2}') == [b'{"a":1}', b"no", b'{"b":2}']
    assert messages(b'{"a":NaN}\n{"b":2}') == [b'{"a":NaN}', b'{"b":2}']
    assert messages(b'{"a":"\\"}"}\n[1]') == [b'{"a":"\\"}"}', b"[1]"]


def test_elements_are_their_own_bytes_and_no_further_opened():
    body = b'[{"a": 1.50, "a":2}, [{"b":1}], "eyJhIjoxfQ==", null,1e999]'
    own = [b'{"a": 1.50, "a":2}', b'[{"b":1}]', b'"eyJhIjoxfQ=="', b"null", b"1e999"]
    assert messages(body) == own
    assert messages(body, LINES) == own
    assert messages(b"[1]\n[2]", LINES) == [b"[1]", b"[2]"]


@pytest.mark.parametrize(
    ("body", "own"),
    [
        (b'[{"a":NaN}]', [b'{"a":NaN}']),
        (b'[{"a":1}, {"b":NaN} ,{"c":[1,2]}]', [b'{"a":1}', b'{"b":NaN}', b'{"c":[1,2]}']),
        (b'[{"a":"x,]"},{b}]\r\n', [b'{"a":"x,]"}', b"{b}"]),
        (BOM + b'[{"a":1},]', [b'{"a":1}', b""]),
        (b'[{"a":1} {"b":2},{"c":3}]', [b'{"a":1} {"b":2}', b'{"c":3}']),
    ],
)
def test_a_broken_element_leaves_the_others_theirs(body: bytes, own: list[bytes]):
    assert messages(body) == own


@SOME
@given(st.lists(VALUES.map(text_of), min_size=1, max_size=9))
def test_an_array_is_parted_alike_whether_an_element_is_broken_or_not(whole: list[bytes]):
    assert messages(b"[" + b" ,".join([*whole, b"NaN"]) + b"]") == [*whole, b"NaN"]


def test_of_a_broken_array_no_more_is_opened_than_of_another():
    assert refused(b"[" + b",".join([b"1"] * 1_000 + [b"NaN"]) + b"]") == (
        "envelope",
        "too_many_elements",
    )


@pytest.mark.parametrize("body", [b"[]", b" [ ]\n", BOM + b"[]", b"\x1e\n\x1e"])
def test_a_sequence_of_nothing_is_rejected(body: bytes):
    assert refused(body) == ("envelope", "no_records")


@pytest.mark.parametrize("body", [b"", b"\n \r\n", BOM])
def test_no_line_is_no_record(body: bytes):
    assert refused(body, LINES) == ("envelope", "no_records")


def test_one_element_nested_too_deeply_is_the_decoders_to_reject():
    deep = b"[" * 150 + b"]" * 150
    assert messages(b'[{"a":1},' + deep + b"]") == [b'{"a":1}', deep]
    for depth in (ARRAY_NESTING_MAX + 1, 5_000, 1_000_000):
        body = b'[{"a":1},' + b"[" * depth + b"]" * depth + b"]"
        assert messages(body) == [body]


# Compression and base64


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_what_is_corrupt_or_cut_off_is_told(pack: Any):
    good = pack(b'{"a":1}' * 50)
    for body in (good[:-1], good[:10], good + b"x", good[:-3] + b"abc", good + good[:9]):
        assert refused(body) == ("envelope", "bad_compression")


def test_a_frame_that_needs_a_dictionary_is_told():
    assert refused(bytes.fromhex("28b52ffd 21 07 0d 69 00 00")) == ("envelope", "bad_compression")


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_no_more_is_opened_than_is_allowed(pack: Any):
    assert refused(pack(bytes(1_000_000))) == ("envelope", "too_large")
    assert refused(pack(pack(bytes(100_000_000)))) == ("envelope", "too_large")
    most = OPENED_BYTES_ALWAYS + OPENED_RATIO_MAX * len(pack(b" " * OPENED_BYTES_ALWAYS))
    assert len(messages(pack(b" " * (most - 100)))[0]) == most - 100


def test_layers_are_counted():
    body = b'{"a":1}'
    for _ in range(LAYERS_MAX):
        body = gzip.compress(body)
    assert messages(body) == [b'{"a":1}']
    assert messages(gzip.compress(body)) == [gzip.compress(b'{"a":1}')]


@pytest.mark.parametrize(
    "body",
    [
        base64.b64encode(b'"text"' * 2),  # not what could be opened
        base64.b64encode(base64.b64encode(b'{"a":1}')),
        base64.b64encode(b'{"a":1}')[:-3],  # one letter too many or too few
        base64.b64encode(b'{"a":1}') + b"!",
        base64.b64encode(b'{"a":1}').replace(b"e", b"e=", 1),
        base64.b64encode(b"{}"),  # too short to tell
        base64.b64encode(KPL_MAGIC + bytes(20)),  # an aggregate whose digest does not hold
        b"12345678",
    ],
)
def test_what_is_not_base64_of_something_opened_stays_whole(body: bytes):
    assert messages(body) == [body]


def test_a_queue_holds_no_aggregates_in_base64_either():
    body = base64.b64encode(aggregate([("k", b'{"a":1}')]))
    assert opened(body, JSON, "kinesis").bodies == [b'{"a":1}']
    assert opened(body, JSON, "sqs").bodies == [body]


def test_what_cannot_be_opened_is_set_aside_alone():
    packed_lines = gzip.compress(b'{"a":1}\n{"a":2}')
    body = aggregate([("k", packed_lines), ("l", packed_lines[:-1]), ("m", b"[]"), ("n", b"{}")])
    found = opened(body)
    assert found.bodies == [b'{"a":1}', b'{"a":2}', b"{}"]
    assert (list(found.subs), list(found.children)) == ([0, 0, 3], [0, 1, 0])
    rejects = [(r.sub, r.child, r.group, r.body, r.rejection.reason) for r in found.rejects]
    assert rejects == [
        (1, 0, "l", packed_lines[:-1], "bad_compression"),
        (2, 0, "m", b"[]", "no_records"),
    ]


# Bounds


def test_no_sequence_of_messages_that_can_be_delivered_holds_too_many():
    one = b'{"":0,"t":"a"}'
    assert len(one) + 1 == ELEMENT_BYTES_MIN
    for body in (b"\n".join([one] * 10_000), b"[" + b",".join([one] * 10_000) + b"]"):
        assert len(messages(body)) == 10_000
    assert len(messages(b"[" + b"1," * (ELEMENTS_ALWAYS - 1) + b"1]")) == ELEMENTS_ALWAYS


@pytest.mark.parametrize("body", [b"[" + b"1," * 500 + b"1]", b"{}\n" * 500, b"\x1e1" * 500])
def test_a_sequence_of_more_messages_than_its_bytes_can_hold_is_rejected_as_one(body: bytes):
    assert refused(body) == ("envelope", "too_many_elements")
    assert refused(gzip.compress(body)) == ("envelope", "too_many_elements")


def test_many_that_are_in_bounds_are_so_together():
    ones = b"[" + b"1," * (ELEMENTS_ALWAYS - 1) + b"1]"
    found = opened(aggregate([("k", ones)] * 1_000))
    elements = len(found.bodies) + len(found.rejects)
    assert elements < 2 * 1_000 * len(ones) // ELEMENT_BYTES_MIN
    assert {reject.rejection.reason for reject in found.rejects} == {"too_many_elements"}
    spaces = zstd(b" " * OPENED_BYTES_ALWAYS)
    found = opened(aggregate([("k", spaces)] * 1_000))
    assert sum(map(len, found.bodies)) < OPENED_BYTES_ALWAYS + 1_000 * OPENED_RATIO_MAX * 60
    assert {reject.rejection.reason for reject in found.rejects} == {"too_large"}


def test_a_contract_of_hundreds_of_fields_takes_fewer_messages():
    lines = b'{"d":"a","t":0}\n' * 1_000
    packed_lines = gzip.compress(b"".join(b'{"d":"a","t":%d}\n' % n for n in range(700)))
    count = lambda body, fields: len(  # noqa: E731
        open_record(body, None, None, "sqs", JSON, fields).bodies
    )
    assert count(lines, 500) == 1_000
    assert (count(lines, 40_000), count(lines, 40_001)) == (1_000, 0)
    assert (count(packed_lines, 5), count(packed_lines, 500)) == (0, 0)


# Through Transform


def test_rows_and_rejects_lead_back_to_their_place():
    good = b'{"device_id":"d","ts":0,"seq":%d,"readings":{"temperature":1}}'
    lines = gzip.compress(b"\n".join([good % 0, b"no", good % 2]))
    bodies = [b"[" + good % 5 + b",[]]", aggregate([("k", good % 9), ("l", lines)]), good % 7]
    count = len(bodies)
    delivery = Delivery(
        source="kinesis",
        stream="s",
        shards=["shardId-000000000000"] * count,
        sequences=[str(n) for n in range(count)],
        groups=["group"] * count,
        arrivals=[0] * count,
        attributes=[None] * count,
        bodies=bodies,
    )
    batch = Transform(load_contract("telemetry")).apply(delivery.table(), "raw/object")
    places = ["_index", "_sub", "_child", "_elements"]
    rows = batch.rows.select([*places, "sequence"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        (0, 0, 0, 2, 5),
        (1, 0, 0, 4, 9),
        (1, 1, 0, 4, 0),
        (1, 1, 2, 4, 2),
        (2, 0, 0, 1, 7),
    ]
    rejects = batch.rejects.select([*places, "_reason", "_partition_key", "_body"]).to_pylist()
    assert [tuple(row.values()) for row in rejects] == [
        (0, 0, 1, 2, "not_an_object", "group", b"[]"),
        (1, 1, 1, 4, "malformed_json", "l", b"no"),
    ]
    assert (batch.counts.delivered, batch.counts.quarantined) == (1, 2)
