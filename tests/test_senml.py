"""SenML packs: what RFC 8428 shows, what it forbids, and numbers to the digit."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transform.envelope import OPENED_BYTES_ALWAYS, OPENED_RATIO_MAX, Envelope, open_record
from transform.records import Rejection
from transform.senml import RELATIVE_BELOW, resolved

SENML = Envelope(body="senml")
ARRIVAL = 1_800_000_000_250_000
AMPLE = 1_000_000


def pack(text: str) -> list[str]:
    """A pack's records, resolved; none is rejected."""
    opened = open_record(text.encode(), None, None, "sqs", SENML, 5, ARRIVAL)
    assert not opened.rejects, opened.rejects
    return [body.decode() for body in opened.bodies]


def refused(text: str) -> list[tuple[int, str]]:
    """The places of the records that are rejected, and why; their own bytes are kept."""
    opened = open_record(text.encode(), None, None, "sqs", SENML, 5, ARRIVAL)
    for reject in opened.rejects:
        assert (reject.rejection.step, reject.rejection.reason) == ("envelope", "bad_senml")
        assert reject.body in text.encode()
    return [(reject.child, reject.rejection.detail) for reject in opened.rejects]


# The RFC's own examples (section 5.1)


def test_a_single_datapoint_is_of_its_arrival():
    assert pack('[{"n":"urn:dev:ow:10e2073a01080063","u":"Cel","v":23.1}]') == [
        '{"n":"urn:dev:ow:10e2073a01080063","u":"Cel","v":23.1,"t":1800000000.25}'
    ]


def test_names_units_and_times_come_from_the_base():
    found = pack(
        """[
        {"bn":"urn:dev:ow:10e2073a0108006:","bt":1.276020076001e+09,
         "bu":"A","bver":10,"n":"voltage","u":"V","v":120.1},
        {"n":"current","t":-5,"v":1.2},
        {"n":"current","t":-4,"v":1.3},
        {"n":"current","v":1.7}
        ]"""
    )
    assert found == [
        '{"n":"urn:dev:ow:10e2073a0108006:voltage","u":"V","v":120.1,"t":1.276020076001e+09}',
        '{"n":"urn:dev:ow:10e2073a0108006:current","u":"A","v":1.2,"t":1276020071.001}',
        '{"n":"urn:dev:ow:10e2073a0108006:current","u":"A","v":1.3,"t":1276020072.001}',
        '{"n":"urn:dev:ow:10e2073a0108006:current","u":"A","v":1.7,"t":1.276020076001e+09}',
    ]


def test_a_base_holds_until_another_comes():
    """Collection of resources: the last has the base name of the third and the first's time."""
    found = pack(
        """[
        {"bn":"2001:db8::2/","bt":1.320078429e+09,"n":"temperature","u":"Cel","v":27.2},
        {"n":"humidity","u":"%RH","v":80},
        {"bn":"2001:db8::1/","n":"temperature","u":"Cel","v":12.3},
        {"n":"humidity","u":"%RH","v":67}
        ]"""
    )
    assert json.loads(found[3]) == {
        "n": "2001:db8::1/humidity",
        "u": "%RH",
        "v": 67,
        "t": 1320078429,
    }


def test_multiple_data_types():
    found = pack(
        """[
        {"bn":"urn:dev:ow:10e2073a01080063:","n":"temp","u":"Cel","v":23.1},
        {"n":"label","vs":"Machine Room"},
        {"n":"open","vb":false},
        {"n":"nfc-reader","vd":"aGkgCg"}
        ]"""
    )
    kinds = [next(k for k in json.loads(one) if k.startswith("v")) for one in found]
    assert kinds == ["v", "vs", "vb", "vd"]


# Numbers


@pytest.mark.parametrize(
    ("first", "second", "fields"),
    [
        ('"bv":20,"v":0.1', '"v":0.2', '"v":20.2'),
        ('"bv":1e16,"v":0', '"v":0.3', '"v":10000000000000000.3'),
        ('"bv":20,"v":1', "", '"v":20'),
        ('"bv":20,"v":1', '"vs":"on"', '"vs":"on"'),
        ('"bv":20,"v":1', '"s":7', '"s":7'),
        ('"bs":100,"s":1', '"s":1.50', '"s":101.50'),
        ('"bs":100,"s":1', '"v":2', '"v":2,"s":100'),
        ('"v":1', '"v":1.10', '"v":1.10'),
        ('"v":1', '"v":-0', '"v":-0'),
        ('"v":1', '"v":1,"ut":60,"x":{"y": 1}', '"v":1,"t":1800000000.25,"ut":60,"x":{"y": 1}'),
    ],
)
def test_sums_are_exact_and_what_is_not_added_stays_as_it_is(first, second, fields):
    found = pack(f'[{{"n":"a",{first}}},{{"n":"a"{"," * bool(second)}{second}}}]')[1]
    assert fields in found
    assert found.startswith('{"n":"a",' + fields)


@pytest.mark.parametrize(
    ("base", "own", "time"),
    [
        ("0", "0", "1800000000.25"),
        ("0", "-60", "1799999940.25"),
        ("0", "0.5", "1800000000.75"),
        ("1700000000", "-0.1", "1699999999.9"),
        ("-10", "5", "1799999995.25"),
        ("0", str(RELATIVE_BELOW), str(RELATIVE_BELOW)),
        ("0", str(RELATIVE_BELOW - 1), "2068435455.25"),
    ],
)
def test_times_under_two_to_the_28_count_from_the_arrival(base, own, time):
    assert pack(f'[{{"n":"a","v":1,"bt":{base},"t":{own}}}]') == [f'{{"n":"a","v":1,"t":{time}}}']


# What is refused


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ("7", "it is 7, not an object"),
        ('{"n":"a"}', "it has neither a value nor a sum"),
        ('{"n":"a","v":1,"vs":"x"}', "v and vs; a record has one value"),
        ('{"v":1}', "it has no name"),
        ('{"n":"-a","v":1}', "'-a' is no name"),
        ('{"n":"a b","v":1}', "'a b' is no name"),
        ('{"n":7,"v":1}', "n is 7, not text"),
        ('{"n":"a","u":1,"v":1}', "u is 1, not text"),
        ('{"n":"a","v":"1"}', 'v is "1", not a number'),
        ('{"n":"a","v":null}', "v is null, not a number"),
        ('{"n":"a","vb":1}', "vb is 1"),
        ('{"n":"a","vs":1}', "vs is 1"),
        ('{"n":"a","v":1,"t":"now"}', 't is "now", not a number'),
        ('{"n":"a","v":1,"t":-1700000000}', "t is -1700000000, which is before 1978"),
        ('{"n":"a","v":1,"t":1e-400}', "t has more digits than are added"),
        (f'{{"n":"a","v":1,"t":{"1" * 61}}}', "t: a number of over 60 characters"),
        ('{"n":"a","v":1,"must_":1}', "must_ must be understood, and is not"),
    ],
)
def test_a_bad_record_is_rejected_alone(record, why):
    ((child, detail),) = refused(f'[{{"n":"x","v":1}},{record},{{"n":"y","v":1}}]')
    assert child == 1
    assert detail.startswith(f"record 2: {why}")


@pytest.mark.parametrize(
    ("base", "why"),
    [
        ('"bn":7', "bn is 7, not text"),
        ('"bt":"now"', 'bt is "now", not a number'),
        ('"bu":{}', "bu is {}, not text"),
        ('"bver":11', "bver is 11; known are 10 and 26"),
        ('"bver":26', "bver is 26, before it was 10"),
        ('"bx_":1', "bx_ must be understood, and is not"),
    ],
)
def test_nothing_can_be_resolved_behind_a_base_that_cannot_be_read(base, why):
    found = refused(f'[{{"n":"x","v":1}},{{"n":"y","v":1,{base}}},{{"n":"z","v":1}}]')
    assert found == [(1, f"record 2: {why}"), (2, f"record 3: it follows record 2, where {why}")]


def test_another_version_is_in_every_resolved_record():
    found = pack('[{"bver":26,"n":"a","u":"degF","v":1},{"n":"b","v":1}]')
    assert [json.loads(one)["bver"] for one in found] == [26, 26]


def test_what_is_no_pack():
    assert pack('{"n":"a","v":1,"bt":1700000000}') == ['{"n":"a","v":1,"t":1700000000}']
    lines = pack('{"bn":"a:","n":"b","v":1}\n{"n":"c","v":2}\n')
    assert [json.loads(one)["n"] for one in lines] == ["a:b", "c"]
    broken = b'[{"n":"a","v":1}'
    assert open_record(broken, None, None, "sqs", SENML, 5).bodies == [broken]
    assert refused("7") == [(0, "record 1: it is 7, not an object")]


def test_behind_a_broken_record_none_is_resolved_and_each_is_told_apart():
    broken = '[{"n":"a","v":1,"bt":1700000000},{"n":"b","v":NaN},{"n":"c","v":2},7]'
    found = open_record(broken.encode(), None, None, "sqs", SENML, 5)
    assert found.bodies == [b'{"n":"a","v":1,"t":1700000000}', b'{"n":"b","v":NaN}']
    assert [(one.child, one.rejection.detail) for one in found.rejects] == [
        (2, "record 3: it follows record 2, which is broken"),
        (3, "record 4: it is 7, not an object"),
    ]


# In other layers


def test_packed_and_wrapped_packs():
    text = b'[{"bn":"d:","n":"a","v":1,"bt":1700000000},{"n":"b","v":2}]'
    expected = ["d:a", "d:b"]
    event = b'{"specversion":"1.0","type":"t","source":"s","id":"1","data":%s}' % text
    wrapped = Envelope(body="senml", unwrap=("cloudevents",))
    for body, envelope, count in (
        (gzip.compress(text), SENML, 1),
        (text, wrapped, 1),
        (event, wrapped, 1),
        (b"[%s,%s]" % (event, event), wrapped, 2),
    ):
        opened = open_record(body, None, None, "sqs", envelope, 5)
        assert [json.loads(one)["n"] for one in opened.bodies] == expected * count
        assert list(opened.children) == list(range(2 * count))


def test_what_comes_of_a_pack_is_bounded_by_its_size():
    name = "n" * 20_000
    records = ",".join(['{"v":1}'] * 1_000)
    body = f'[{{"bn":"{name}","v":1}},{records}]'.encode()
    opened = open_record(body, None, None, "sqs", SENML, 5, ARRIVAL)
    ((*_, came, why),) = opened.rejects
    assert (why.reason, came, opened.bodies) == ("too_large", body, [])
    assert f"{OPENED_BYTES_ALWAYS + OPENED_RATIO_MAX * len(body)} bytes" in why.detail


# Whatever the pack

numbers = st.one_of(
    st.integers(-(10**12), 10**12).map(str),
    st.decimals(-(10**6), 10**6, places=3).map(str),
    st.floats(-1e15, 1e15, allow_subnormal=False).map(repr),
)
texts = st.sampled_from(["a", "b:", "urn:dev:ow:1:", "", "-", "Cel"]).map(json.dumps)
times = st.one_of(
    st.integers(-(10**6), 10**6), st.sampled_from([1_276_020_076, 1_700_000_000.5, RELATIVE_BELOW])
).map(str)
records = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("bn", "n", "bu", "u", "vs"), texts),
        **dict.fromkeys(("bv", "v", "bs", "s"), numbers),
        **dict.fromkeys(("bt", "t"), times),
        "bver": st.sampled_from(["10", "26"]),
        "vb": st.just("true"),
        "x": numbers,
        "odd_": st.just("1"),
    },
).map(lambda fields: "{" + ",".join(f'"{k}":{v}' for k, v in fields.items()) + "}")


@settings(max_examples=400, deadline=None)
@given(st.lists(records, min_size=1, max_size=6))
def test_a_resolved_pack_resolved_is_itself(given_records):
    found = resolved([record.encode() for record in given_records], ARRIVAL, AMPLE)
    assert isinstance(found, list)
    assert len(found) == len(given_records)
    good = [one for one in found if isinstance(one, bytes)]
    assert resolved(good, ARRIVAL + 1, AMPLE) == good
    for one in good:
        fields = json.loads(one, parse_float=Decimal, parse_int=Decimal)
        assert not {"bn", "bt", "bu", "bv", "bs"} & fields.keys()
        assert fields["t"] >= RELATIVE_BELOW
        assert len({"v", "vs", "vb", "vd"} & fields.keys()) == 1 or "s" in fields


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=30) | records.map(str.encode), max_size=4))
def test_any_bytes_get_an_answer(given_records):
    for one in resolved(given_records, ARRIVAL, AMPLE):
        assert isinstance(one, (bytes, Rejection))
