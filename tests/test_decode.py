"""One message into one row or one reason: every failure attributed, every value exact."""

import json
import sys
from dataclasses import replace
from typing import get_args

import msgspec
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transform.contract_file import load_contract, parse_contract
from transform.exact_reader import DETAIL_MAX_CHARACTERS, DEVICE_ID_MAX_BYTES
from transform.field_types import INT64_MAX, INT64_MIN
from transform.plan import Plan
from transform.readable import NESTING_MAX
from transform.records import Reason, Rejection

SOME = settings(max_examples=200, deadline=None)
MANY = settings(max_examples=600, deadline=None)

CONTRACT = parse_contract(
    b"""
name = "probe"
[identity]
device = "id"
event_time = "at"
[limits]
max_body_bytes = 262144

[[field]]
name = "id"
type = "string"
[[field]]
name = "at"
type = "timestamp"
format = "epoch_millis"
[[field]]
name = "need"
type = "float64"
path = "must.have"
required = true

[[field]]
name = "text"
type = "string"
[[field]]
name = "mode"
type = "string"
allowed = ["on", "off", ""]
default = "on"
[[field]]
name = "count"
type = "int64"
[[field]]
name = "small"
type = "int64"
path = "n.small"
min = -5
max = 5
[[field]]
name = "level"
type = "int64"
path = "n.level"
allowed = [1, 2, 3]
default = 2
[[field]]
name = "ratio"
type = "float64"
path = "n.deep.ratio"
[[field]]
name = "share"
type = "float64"
path = ["n", "deep", "share.of"]
min = 0
max = 1
default = 0.5
[[field]]
name = "flag"
type = "bool"
[[field]]
name = "dark"
type = "bool"
default = false
[[field]]
name = "seen"
type = "timestamp"
format = "iso8601"
path = "times.seen"
[[field]]
name = "since"
type = "timestamp"
format = "epoch_seconds"
path = "times.since"
default = 60
""",
    "probe.toml",
)
DECODER = Plan(CONTRACT).message
DROPPING = Plan(replace(CONTRACT, unknown="drop")).message
NAMES = [field.name for field in CONTRACT.fields]

ID, AT, NEED = '"id":"d"', '"at":0', '"must":{"have":1}'
LEAST = {"id": "d", "at": 0, "need": 1.0}
DEFAULTS = {"mode": "on", "level": 2, "share": 0.5, "dark": False, "since": 60_000_000}


def message(*members, base=(ID, AT, NEED)):
    return ("{" + ",".join([*base, *members]) + "}").encode()


def decoded(body, decoder=DECODER):
    """The row by name, without what is null, and what was rescued."""
    result = decoder.decode(body)
    assert not isinstance(result, Rejection), result
    row, rescued = result
    names = [field.name for field in decoder.fields]
    return {n: v for n, v in zip(names, row, strict=True) if v is not None}, rescued


def values_of(*members):
    return decoded(message(*members))[0]


# Reasons

REJECTIONS = [
    ("too_large", "envelope", None, b" " * 262_145),
    ("not_utf8", "decode", None, b"\xff"),
    ("not_utf8", "decode", None, b'{"id":"\xed\xa0\x80"}'),
    ("not_utf8", "decode", None, message('"text":"d"').replace(b'"d"', b'"\xc3"')),
    ("malformed_json", "decode", None, b""),
    ("malformed_json", "decode", None, b"{"),
    ("malformed_json", "decode", None, b"nonsense"),
    ("malformed_json", "decode", None, b"\xef\xbb\xbf" + message()),
    ("malformed_json", "decode", None, message() + b"{}"),
    ("malformed_json", "decode", None, b'{"text":"a\nb"}'),
    ("malformed_json", "decode", None, b"{'id':1}"),
    ("malformed_json", "decode", None, b'{"id":01}'),
    ("malformed_json", "decode", None, b'{"id":-NaN}'),
    ("malformed_json", "decode", None, message('"x":1,')),
    ("malformed_json", "decode", None, message(f'"x":{"[" * 101}')),
    ("malformed_json", "decode", None, message(f'"x":{"[" * 5_000}{"]" * 5_000}')),
    ("lone_surrogate", "decode", None, message(r'"text":"\ud800"')),
    ("lone_surrogate", "decode", None, message(r'"text":"\udfff"')),
    ("lone_surrogate", "decode", None, message(r'"text":"\ud800\u0041"')),
    ("lone_surrogate", "decode", None, message(r'"text":"\udc00\ud800"')),
    ("lone_surrogate", "decode", None, message(r'"unknown":["\ud800"]')),
    ("lone_surrogate", "decode", None, message(r'"\ud800":1')),
    ("not_finite", "decode", None, message('"n":{"deep":{"ratio":NaN}}')),
    ("not_finite", "decode", None, message('"n":{"deep":{"ratio":Infinity}}')),
    ("not_finite", "decode", None, message('"n":{"deep":{"ratio":-Infinity}}')),
    ("not_finite", "decode", None, message('"n":{"deep":{"ratio":1e999}}')),
    ("not_finite", "decode", None, message('"unknown":-1e999')),
    ("not_finite", "decode", None, message('"unknown":NaN', f'"more":{"9" * 5_000}')),
    ("not_finite", "decode", None, message(f'"count":{"9" * 5_000}')),
    ("not_finite", "decode", "ratio", message(f'"n":{{"deep":{{"ratio":{"9" * 400}}}}}')),
    ("not_an_object", "decode", None, b"null"),
    ("not_an_object", "decode", None, b"[{}]"),
    ("not_an_object", "decode", None, b'"text"'),
    ("not_an_object", "decode", None, b"1"),
    ("missing_field", "check", "id", message(base=(AT, NEED))),
    ("missing_field", "check", "id", message('"id":null', base=(AT, NEED))),
    ("missing_field", "check", "id", message('"id":""', base=(AT, NEED))),
    ("missing_field", "check", "at", message(base=(ID, NEED))),
    ("missing_field", "check", "at", message('"at":null', base=(ID, NEED))),
    ("missing_field", "check", "need", message(base=(ID, AT))),
    ("missing_field", "check", "need", message('"must":null', base=(ID, AT))),
    ("missing_field", "check", "need", message('"must":{}', base=(ID, AT))),
    ("missing_field", "check", "need", message('"must":{"have":null}', base=(ID, AT))),
    ("wrong_type", "check", "id", message('"id":1', base=(AT, NEED))),
    ("wrong_type", "check", "need", message('"must":1', base=(ID, AT))),
    ("wrong_type", "check", "small", message('"n":[]')),
    ("wrong_type", "check", "ratio", message('"n":{"deep":"x"}')),
    ("wrong_type", "check", "ratio", message('"n":{"deep":{"ratio":"1"}}')),
    ("wrong_type", "check", "ratio", message('"n":{"deep":{"ratio":true}}')),
    ("wrong_type", "check", "text", message('"text":1')),
    ("wrong_type", "check", "text", message('"text":{}')),
    ("wrong_type", "check", "mode", message('"mode":1')),
    ("wrong_type", "check", "count", message('"count":true')),
    ("wrong_type", "check", "count", message('"count":"1"')),
    ("wrong_type", "check", "count", message('"count":1.5')),
    ("wrong_type", "check", "count", message('"count":1.0')),
    ("wrong_type", "check", "count", message('"count":1e3')),
    ("wrong_type", "check", "level", message('"n":{"level":true}')),
    ("wrong_type", "check", "flag", message('"flag":1')),
    ("wrong_type", "check", "flag", message('"flag":"true"')),
    ("out_of_range", "check", "small", message('"n":{"small":6}')),
    ("out_of_range", "check", "small", message('"n":{"small":-6}')),
    ("out_of_range", "check", "share", message('"n":{"deep":{"share.of":1.0000000000000002}}')),
    ("out_of_range", "check", "share", message('"n":{"deep":{"share.of":-5e-324}}')),
    ("out_of_range", "check", "count", message(f'"count":{INT64_MAX + 1}')),
    ("out_of_range", "check", "count", message(f'"count":{INT64_MIN - 1}')),
    ("out_of_range", "check", "count", message(f'"count":{2**64}')),
    ("out_of_range", "check", "count", message(f'"count":{"9" * 400}')),
    ("out_of_range", "check", "level", message(f'"n":{{"level":{2**63}}}')),
    ("not_allowed", "check", "mode", message('"mode":"On"')),
    ("not_allowed", "check", "level", message('"n":{"level":4}')),
    ("bad_timestamp", "check", "at", message('"at":""', base=(ID, NEED))),
    ("bad_timestamp", "check", "at", message('"at":true', base=(ID, NEED))),
    ("bad_timestamp", "check", "at", message('"at":[0]', base=(ID, NEED))),
    ("bad_timestamp", "check", "at", message('"at":"é"', base=(ID, NEED))),
    ("bad_timestamp", "check", "at", message('"at":1e18', base=(ID, NEED))),
    ("bad_timestamp", "check", "seen", message('"times":{"seen":0}')),
    ("bad_timestamp", "check", "seen", message('"times":{"seen":"2020-01-01"}')),
    ("bad_timestamp", "check", "since", message('"times":{"since":"soon"}')),
    ("too_long", "check", "id", message(f'"id":"{"d" * 1_025}"', base=(AT, NEED))),
    ("too_long", "check", "id", message(f'"id":"{"💧" * 257}"', base=(AT, NEED))),
]


@pytest.mark.parametrize(("reason", "step", "field", "body"), REJECTIONS)
def test_a_rejection_names_step_reason_and_field(reason, step, field, body):
    rejection = DECODER.decode(body)
    assert isinstance(rejection, Rejection)
    assert (rejection.step, rejection.reason, rejection.field) == (step, reason, field)
    assert 0 < len(rejection.detail) <= DETAIL_MAX_CHARACTERS


def test_every_reason_of_the_decoder_is_reached():
    # test_kpl.py, test_envelope.py, test_senml.py, test_pipeline.py, test_killers.py, test_verbs.py
    elsewhere = {"malformed_aggregate", "too_many_elements", "future_time", "killer"}
    elsewhere |= {"bad_compression", "bad_wrapper", "bad_senml", "no_records"}
    elsewhere |= {"unknown_field", "no_value", "no_readings", "unknown_type", "unknown_schema"}
    assert {reason for reason, *_ in REJECTIONS} == set(get_args(Reason)) - elsewhere


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (message('"n":{"deep":{"ratio":"warm"}}'), 'n.deep.ratio is not a number: "warm"'),
        (message('"n":{"deep":[]}'), "n.deep is not an object"),
        (message('"n":{"small":6}'), "n.small is 6; the contract takes -5 to 5"),
        (message('"times":{"since":"soon"}'), "times.since: 'soon' is not a decimal number"),
        (message('"must":{}', base=(ID, AT)), "must.have is absent or null"),
        (message(f'"text":{"[" * 40}{"]" * 40}'), f"text is not a string: {'[' * 40}..."),
        (message(f'"x":{"[" * 500}{"]" * 500}'), "nested more than 100 deep"),
        (b" " * 262_145, "262145 bytes; the contract takes 262144"),
    ],
)
def test_a_rejection_says_where_and_what(body, detail):
    assert DECODER.decode(body).detail == detail


@pytest.mark.parametrize(
    ("device", "fits"),
    [("d", True), ("d" * 1_024, True), ("d" * 1_025, False), ("é" * 512, True), ("é" * 513, False)],
)
def test_a_device_id_is_measured_in_bytes(device, fits):
    assert (len(device.encode()) <= DEVICE_ID_MAX_BYTES) == fits
    row = DECODER.decode(message(json.dumps({"id": device})[1:-1], base=(AT, NEED)))
    assert isinstance(row, Rejection) != fits


# Values


def test_a_message_with_every_field():
    row, rescued = decoded(
        message(
            '"text":"t"',
            '"mode":"off"',
            '"count":-1',
            '"n":{"small":5,"level":3,"deep":{"ratio":0.1,"share.of":1}}',
            '"flag":false',
            '"dark":true',
            '"times":{"seen":"1970-01-01T00:00:01Z","since":0.25}',
        )
    )
    assert rescued is None
    assert row == LEAST | {
        "text": "t",
        "mode": "off",
        "count": -1,
        "small": 5,
        "level": 3,
        "ratio": 0.1,
        "share": 1.0,
        "flag": False,
        "dark": True,
        "seen": 1_000_000,
        "since": 250_000,
    }


NULLS = (
    ['"text":null', '"mode":null', '"count":null', '"flag":null', '"dark":null'],
    ['"n":null', '"times":null'],
    ['"n":{}', '"times":{}'],
    ['"n":{"small":null,"level":null,"deep":null}', '"times":{"seen":null,"since":null}'],
    ['"n":{"deep":{"ratio":null,"share.of":null}}'],
    [],
)


@pytest.mark.parametrize("members", NULLS)
def test_null_and_absent_are_the_same(members):
    row, rescued = decoded(message(*members))
    assert row == LEAST | DEFAULTS
    assert rescued is None


def test_an_empty_text_is_neither_null_nor_absent():
    assert values_of('"mode":""', '"text":""') == LEAST | DEFAULTS | {"mode": "", "text": ""}


def test_zero_and_false_are_values():
    assert values_of('"count":0', '"dark":false', '"flag":false', '"times":{"since":0}') == (
        LEAST | DEFAULTS | {"count": 0, "flag": False, "since": 0}
    )


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (['"text":"a"', '"text":"b"'], {"text": "b"}),
        (['"count":"wrong"', '"count":1'], {"count": 1}),
        (['"text":"a"', '"text":null'], {}),
        (['"n":{"small":1}', '"n":{"level":1}'], {"level": 1}),
        (['"n":1', '"n":{"small":1}'], {"small": 1}),
        (['"n":{"small":1}', '"n":null'], {}),
        ([r'"t\u0065xt":"a"', '"text":"b"'], {"text": "b"}),
    ],
)
def test_of_a_repeated_key_the_last_value_counts(members, expected):
    row, rescued = decoded(message(*members))
    assert row == LEAST | DEFAULTS | expected
    assert rescued is None


@pytest.mark.parametrize("text", ["1", "1.0", "1e0", "10E-1"])
def test_a_float_field_takes_any_number(text):
    row = values_of(f'"n":{{"deep":{{"ratio":{text}}}}}')
    assert row["ratio"] == 1.0
    assert isinstance(row["ratio"], float)


def test_white_space_is_no_part_of_a_value():
    body = (
        b' {"id" : "d" ,\n\t"at" : 0 , "must" : { "have" : 1 } , "text" : null , "n" : null } \r\n'
    )
    assert decoded(body) == (LEAST | DEFAULTS, None)
    assert DECODER.slow(body) == DECODER.decode(body)


@pytest.mark.parametrize(
    "key", ["a.b", " ", "é", "💧", "a/b", "~", "\x7f", "f0", "type", "__dict__"]
)
def test_a_path_may_hold_any_key_that_a_contract_takes(key):
    contract = parse_contract(
        f"""
        name = "keys"
        [identity]
        device = "id"
        event_time = "at"
        [[field]]
        name = "id"
        type = "string"
        path = ["{key}", "id"]
        [[field]]
        name = "at"
        type = "timestamp"
        format = "epoch_millis"
        """.replace("\x7f", "\\u007f").encode(),
        "keys.toml",
    )
    for ascii_only in (True, False):
        document = {key: {"id": "d"}, "at": 1}
        body = json.dumps(document, ensure_ascii=ascii_only).encode()
        assert decoded(body, Plan(contract).message) == ({"id": "d", "at": 1_000}, None)


# Exactness


@SOME
@given(st.integers(INT64_MIN, INT64_MAX))
@example(INT64_MIN)
@example(INT64_MAX)
@example(2**53 + 1)
def test_an_int64_is_exact(number):
    count = values_of(f'"count":{number}')["count"]
    assert pa.array([count], pa.int64()).to_pylist() == [number]


@SOME
@given(st.floats(allow_nan=False, allow_infinity=False))
@example(5e-324)
@example(1.7976931348623157e308)
@example(-0.0)
def test_a_float64_is_exact(number):
    body = message(f'"must":{{"have":{number!r}}}', base=(ID, AT))
    need = decoded(body)[0]["need"]
    assert repr(pa.array([need], pa.float64())[0].as_py()) == repr(number)


@SOME
@given(st.text())
@example("\x00")
@example("\x7f\u2028\ufeff\uffff\U0010ffff")
@example("👩\u200d🔬 é e\u0301")
def test_any_text_survives_into_its_column_and_back(text):
    for ascii_only in (True, False):
        members = json.dumps({"text": text}, ensure_ascii=ascii_only)[1:-1]
        (value,) = pa.array([values_of(members)["text"]], pa.string()).to_pylist()
        assert value == text


# Unknown fields


@pytest.mark.parametrize(
    ("members", "rescued"),
    [
        (['"x":1.0e5'], '{"x":1.0e5}'),
        (['"x":12345678901234567890123'], '{"x":12345678901234567890123}'),
        (['"x":-0.10'], '{"x":-0.10}'),
        (['"x":null'], '{"x":null}'),
        (['"x": [1,  {"y" : 2}]'], '{"x":[1,  {"y" : 2}]}'),
        ([r'"x":"\u00e9"'], r'{"x":"\u00e9"}'),
        (['"x":"é"'], '{"x":"é"}'),
        ([r'"\u0078\"":1'], r'{"x\"":1}'),
        (['"":0'], '{"":0}'),
        (['"x":1', '"y":2'], '{"x":1,"y":2}'),
        (['"x":1', '"x":2'], '{"x":2}'),
        (['"n":{"small":1,"x":1}'], '{"n":{"x":1}}'),
        (['"n":{"deep":{"x":1}}', '"y":2'], '{"n":{"deep":{"x":1}},"y":2}'),
        (['"share.of":1'], '{"share.of":1}'),
        (['"count ":1'], '{"count ":1}'),
    ],
)
def test_an_unknown_field_is_rescued_as_it_was_written(members, rescued):
    assert decoded(message(*members))[1] == rescued


def test_a_rejected_message_rescues_nothing_because_its_whole_body_is_kept():
    assert isinstance(DECODER.decode(message('"x":1', '"flag":0')), Rejection)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)
keys = st.text(max_size=10).filter(
    lambda key: key not in {field.path[0] for field in CONTRACT.fields}
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(keys, json_values), st.booleans(), st.sampled_from([None, 1]))
def test_any_unknown_field_is_rescued_exactly(unknown, ascii_only, indent):
    known = {"id": "d", "at": 0, "must": {"have": 1}}
    body = json.dumps(known | unknown, ensure_ascii=ascii_only, indent=indent)
    row, rescued = decoded(body.encode())
    assert row == LEAST | DEFAULTS
    if not unknown:
        assert rescued is None
        return
    written = {"parse_int": str, "parse_float": str}  # so that the text of a number is compared
    kept = json.loads(rescued, **written)
    assert kept == {key: json.loads(body, **written)[key] for key in unknown}
    assert list(kept) == list(unknown)


# The two readers

NUMBERS = ["0", "-0", "-0.0", "1", "0.5", "1e-9", "1E+3", "-1e-400", "0.1", str(2**63), "1e22"]
FITTING = {
    "id": ['"d"', '"é"', r'"\u0064"', r'"\ud83d\ude00"'],
    "at": ["0", "-1.5", "1594598735772", '"1594598735772.7768"', "1e12"],
    "have": NUMBERS,
    "text": ['""', '"t"', r'"\n\u0000"', "null"],
    "mode": ['"on"', '"off"', '""', r'"o\u006e"', "null"],
    "count": ["0", "-0", "7", str(INT64_MAX), str(INT64_MIN), "null"],
    "small": ["-5", "-0", "5", "null"],
    "level": ["1", "2", "3", "null"],
    "ratio": [*NUMBERS, "null"],
    "share.of": ["0", "1", "1.0", "0.30000000000000004", "null"],
    "flag": ["true", "false", "null"],
    "dark": ["true", "false", "null"],
    "seen": ['"2020-01-01T00:00:00Z"', '"2020-01-01 05:45:00.0000005+0545"', "null"],
    "since": ["0", "1594598735.7727768", '"1.5e9"', "null"],
    "x": ["0"],
}
OTHER = [
    *('"z"', '"1"', '"soon"', r'"\ud800"', "6", "-6", "4", "1.5", "1e999", "NaN", "", '{"x":1}'),
    *(str(INT64_MAX + 1), str(INT64_MIN - 1), "9" * 400, "{}", "[]", "[[]]", "true", "null", "01"),
]
others = st.sampled_from(OTHER) | st.builds(
    msgspec.json.encode,
    st.text(max_size=5) | st.integers(INT64_MIN, INT64_MAX) | st.floats(allow_nan=False),
).map(bytes.decode)


def mostly(fitting):
    """These values, and in one case of twelve any other."""
    return st.tuples(st.integers(0, 11), fitting, others).map(
        lambda drawn: drawn[2] if drawn[0] == 7 else drawn[1]
    )


def fitting(*names):
    return {name: st.sampled_from(FITTING[name]) for name in names}


def objects(values, least=()):
    """The text of an object: `least`, then any members of `values`, repeated ones among them."""
    space = st.sampled_from(["", "", "\n "])
    member = st.one_of(
        st.builds('{}"{}":{}'.format, space, st.just(name), mostly(value))
        for name, value in values.items()
    )
    return st.lists(member, max_size=4).map(lambda found: "{" + ",".join([*least, *found]) + "}")


deep = objects(fitting("ratio", "share.of"))
fields = fitting("id", "at", "text", "mode", "count", "flag", "dark") | {
    "must": objects(fitting("have"), least=['"have":1']),
    "n": objects(fitting("small", "level") | {"deep": deep}),
    "times": objects(fitting("seen", "since")),
    r"\u0069d": st.just('"e"'),  # `id` again, in escapes
}
messages = st.one_of(
    objects(fields, least=(ID, AT, NEED)),
    objects(fields | fitting("x"), least=(ID, AT, NEED)),
    objects(fields, least=(ID, AT)),
)


@MANY
@given(messages)
@example('{"id":"d","at":0,"must":{"have":1e999,"have":"\\ud800","have":1}}')
def test_what_the_fast_reader_accepts_the_slow_one_reads_alike(text):
    body = text.encode()
    fast = DECODER.fast(body)
    slow = DECODER.slow(body)
    if fast is not None:
        assert not isinstance(slow, Rejection), slow
        assert repr(slow) == repr((fast, None))  # the types, and the sign of a zero, too
    assert repr(DECODER.decode(body)) == repr(slow)


@MANY
@given(st.lists(messages, max_size=4), st.sampled_from(["", "é" * 300, "\\ud800"]))
def test_messages_read_together_are_as_those_read_one_by_one(texts: list[str], device: str):
    ordinary = message(), message('"text":"é"'), message('"times":{"since":1}')
    odd = f'{{"id":"{device}","at":0,"must":{{"have":1}}}}'.encode()
    for bodies in ([t.encode() for t in texts], ordinary, [*ordinary, odd], []):
        for decoder in (DECODER, DROPPING):
            one_by_one = [decoder.fast(body) for body in bodies]
            assert repr(decoder.fast_each(bodies)) == repr(one_by_one)


def test_what_is_too_large_is_not_read():
    small = replace(DECODER, max_body_bytes=len(message()))
    long = message('"text":"' + "x" * 100 + '"')
    assert small.fast_each([message(), long]) == [DECODER.fast(message()), None]


@pytest.mark.parametrize(
    "body",
    [
        message(),
        message('"text":"é"', '"mode":"off"', '"count":1', '"flag":true', '"dark":null'),
        message('"n":{"small":1,"level":1,"deep":{"ratio":1,"share.of":0}}'),
        message('"times":{"seen":"2020-01-01T00:00:00Z","since":1.5}'),
        message('"n":{"deep":{}}', '"times":{"seen":null}'),
    ],
)
def test_the_fast_reader_takes_the_ordinary_message(body):
    assert DECODER.fast(body) is not None


@pytest.mark.parametrize("name", ["environment-sensors", "telemetry"])
def test_every_shipped_contract_has_a_decoder(name):
    decoder = Plan(load_contract(name)).message
    assert decoder.decode(b"{}").reason == "missing_field"


# Nothing crashes it


def test_nesting_up_to_the_limit_is_read_and_no_deeper():
    def nested(depth):
        return message(f'"x":{"[" * depth}{"]" * depth}')

    deepest = NESTING_MAX - 1  # the message itself is one
    assert decoded(nested(deepest))[1] == f'{{"x":{"[" * deepest}{"]" * deepest}}}'
    assert DECODER.decode(nested(deepest + 1)).reason == "malformed_json"
    assert DECODER.decode(message(f'"x":{{"y":{"[" * deepest}{"]" * deepest}}}')).field is None


def test_brackets_in_texts_and_side_by_side_are_not_nested():
    many = "[]," * 2_000
    body = message(f'"text":"{"[" * 2_000}"', f'"x":[{many}"{"{" * 200}",{many}0]')
    assert decoded(body)[0]["text"] == "[" * 2_000


def under(frames, call):
    return call() if frames == 0 else under(frames - 1, call)


@pytest.mark.parametrize("depth", [NESTING_MAX - 1, NESTING_MAX, 400, 950, 10_000])
def test_a_verdict_does_not_depend_on_the_stack_it_is_made_on(depth):
    body = message(f'"x":{"[" * depth}{"]" * depth}')
    verdict = DECODER.decode(body)
    frames = sys.getrecursionlimit() - 400  # leaves room for what already runs
    assert under(frames, lambda: DECODER.decode(body)) == verdict


@pytest.mark.parametrize(
    "body",
    [
        b'"' + b'\\"' * 130_000,
        b"[" * 262_144,
        b'{"":' * 65_000,
        b'[["' * 80_000,
        b"\\" * 262_144,
        b"9" * 262_144,
        message('"x":' + "9" * 200_000),
        message('"x":0.' + "9" * 200_000),
        message('"at":' + "9" * 200_000),
        message('"times":{"seen":"2020-01-01T00:00:00.' + "9" * 200_000 + 'Z"}'),
        message('"text":"' + "\\u0000" * 40_000 + '"'),
    ],
    ids=lambda body: repr(body[:8]),
)
def test_a_body_made_to_hurt_is_judged_like_any_other(body):
    DECODER.decode(body)


def test_a_megabyte_of_garbage_is_too_large():
    garbage = bytes(range(256)) * 4_096
    assert DECODER.decode(garbage).reason == "too_large"
    assert DECODER.slow(garbage).reason == "not_utf8"
    assert DECODER.fast(garbage) is None


def is_verdict(result):
    if isinstance(result, Rejection):
        result.detail.encode()
        return True
    row, rescued = result
    columns = zip(CONTRACT.landing_schema(), row, strict=False)
    for column, value in columns:
        pa.array([value], pa.int64() if pa.types.is_timestamp(column.type) else column.type)
    pa.array([rescued], pa.string())
    return True


@SOME
@given(st.binary(max_size=200))
def test_any_bytes_get_a_verdict(body):
    assert is_verdict(DECODER.decode(body))


FULL = message(
    r'"text":"\u00e9é\ud83d\ude00"',
    '"n":{"small":5,"deep":{"ratio":1.5e300}}',
    '"times":{"seen":"2020-01-01T00:00:00.5+01:00"}',
    '"x":[{"y":-12345678901234567890}]',
)


@MANY
@given(
    st.integers(0, len(FULL)),
    st.integers(0, 6),
    st.binary(max_size=4)
    | st.sampled_from([b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"e9", b"9" * 30, b"-"]),
)
def test_any_damage_to_a_message_gets_a_verdict(start, length, damage):
    assert is_verdict(DECODER.decode(FULL[:start] + damage + FULL[start + length :]))
