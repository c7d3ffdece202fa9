"""How a message is read: which version and case of a contract, and to which rows it comes."""

import json

import pytest
from hypothesis import given, settings

from tests.test_decode import messages
from tests.verbs import (
    AT,
    SECONDS,
    applied,
    contract,
    delivery,
    details,
    dropped,
    field,
    like,
    refused,
    values,
)
from transform.contract import Where
from transform.decode import Decoder
from transform.envelope import ELEMENTS_ALWAYS, READING_BYTES_MIN, rows_max
from transform.kpl import aggregate
from transform.pipeline import Transform
from transform.plans import version_named
from transform.records import Rejection

MANY = settings(max_examples=500, deadline=None)
SECRET = "a secret"
BROKEN = [
    (b"{", "malformed_json"),
    (b'{"kind":"a","x":"\xff"}', "not_utf8"),
    (b'{"kind":"z","x":"\xff"}', "not_utf8"),
    (b'{"kind":"z","x":"\\ud800"}', "lone_surrogate"),
    (b'{"kind":"z","x":1e999}', "not_finite"),
    (b'{"kind":"z","x":NaN}', "not_finite"),
    (b'{"kind":' + b"9" * 5_000 + b"}", "not_finite"),
    (b'{"kind":"z","x":' + b"[" * 101 + b"]" * 101 + b"}", "malformed_json"),
    (b'"kind"', "not_an_object"),
]


def digests(batch):
    return [digest.hex() for digest in values(batch, "_digest")]


# Unknown fields


@pytest.mark.parametrize("unknown", ["rescue", "drop", "reject"])
def test_fields_that_nobody_names_go_where_the_contract_says(unknown):
    rules = contract(field("t", "float64", path="a.t"), top=f'unknown = "{unknown}"')
    batch = applied(rules, like(a={"t": 1}), like(a={"t": 1, "u": {"v": 2}}), like(x=3))
    kept = {"rescue": [None, '{"a":{"u":{"v": 2}}}', '{"x":3}'], "drop": [None] * 3}
    assert values(batch, "_rescued") == kept.get(unknown, [None])
    assert refused(batch) == ([("check", "unknown_field", None)] * 2 if unknown == "reject" else [])
    if unknown == "reject":
        assert details(batch) == ["the contract has no a.u", "the contract has no x"]


@pytest.mark.parametrize("body", [body for body, _ in BROKEN if b"kind" in body])
def test_what_is_dropped_must_be_json_nonetheless(body):
    batch = applied(contract(top='unknown = "drop"'), body.replace(b"{", b'{"d":"a","at":0,', 1))
    assert refused(batch)[0][:2] in {("decode", reason) for _, reason in BROKEN}


CASES = {
    "dropped": {"unknown": "drop"},
    "known": {"known": [Where(("x",)), Where(("n", "deep", "y"))]},
    "known and dropped": {"unknown": "drop", "known": [Where(("x",))]},
    "known and rejected": {"unknown": "reject", "known": [Where(("x",))]},
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_what_the_fast_reader_accepts_the_slow_one_reads_alike(options):
    rules = contract(
        field("need", "float64", path="must.have", required=True)
        + field("text", "string", aliases=["mode"])
        + field("small", "int64", path="n.small", min=-5, max=5, aliases=["count"])
        + field("ratio", "float64", path="n.deep.ratio", aliases=["n.level"]),
        device='path = "id"',
    )
    decoder = Decoder.of(rules.fields, device="d", **options)

    @MANY
    @given(messages)
    def alike(text):
        fast, slow = decoder.fast(text.encode()), decoder.slow(text.encode())
        if fast is not None:
            assert not isinstance(slow, Rejection), slow
            assert repr(slow) == repr((fast, None))

    alike()


# Message types


def typed(where='path = "kind"', otherwise="reject", a='["t"]', b='["v"]', rest=""):
    return contract(
        f'[choose]\n{where}\notherwise = "{otherwise}"\n'
        f'[[choose.case]]\nvalue = "a"\nfields = {a}\n'
        f'[[choose.case]]\nvalue = ["b", 7, true]\nfields = {b}\n'
        + rest
        + field("t", "float64", required=True)
        + field("v", "int64", default=5)
    )


def test_a_message_has_the_fields_of_its_type():
    batch = applied(
        typed(),
        like(kind="a", t=1, v=2),
        like(kind="a"),
        like(kind="b", t="x"),
        like(kind=7, v=1),
        like(kind=True, v=1),
        like(kind="7", v=1),
        like(kind="true", v="x"),
    )
    assert values(batch, "t", "v", "_rescued") == [
        (1.0, None, '{"v":2}'),
        (None, 5, '{"t":"x"}'),
        *[(None, 1, None)] * 3,
    ]
    assert refused(batch) == [("check", "missing_field", "t"), ("check", "wrong_type", "v")]


@pytest.mark.parametrize("otherwise", ["reject", "drop"])
def test_another_type_is_rejected_or_dropped(otherwise):
    rules = typed(otherwise=otherwise)
    others = ("z", 8, False, 7.5, None, {}, "x" * 100)
    batch = applied(rules, *(like(kind=kind) for kind in others), like())
    if otherwise == "drop":
        assert dropped(batch) == ["choose"] * 8
        return
    assert refused(batch) == [("check", "unknown_type", None)] * 8
    told = [detail.removeprefix("the message names ") for detail in details(batch)]
    shown = ["'z'", "'8'", "'false'", None, None, None, repr("x" * 40 + "...")]
    assert told == [f"type {one}" if one else "no type" for one in (*shown, None)]


@pytest.mark.parametrize("otherwise", ["reject", "drop"])
@pytest.mark.parametrize(("body", "reason"), BROKEN)
def test_what_cannot_be_read_is_of_no_type(otherwise, body, reason):
    assert refused(applied(typed(otherwise=otherwise), body)) == [("decode", reason, None)]


def test_the_last_value_of_a_key_counts_for_the_type_too():
    body = b'{"kind":{},"kind":"z","kind":"b","d":"a","at":%d}' % AT
    assert values(applied(typed(), body), "v") == [5]


def test_the_place_of_the_type_is_not_rescued_and_may_be_a_field():
    deep = typed('path = "meta.kind"')
    batch = applied(deep, like(meta={"kind": "b", "x": 1}), like(meta=5))
    assert values(batch, "_rescued") == ['{"meta":{"x":1}}']
    assert refused(batch) == [("check", "unknown_type", None)]
    named = typed(a='["t", "kind"]', b='["v", "kind"]', rest=field("kind", "string"))
    assert values(applied(named, like(kind="b")), "kind") == ["b"]


def test_a_type_may_be_an_attribute():
    rules = typed('attribute = "type"', otherwise="drop")
    given = [{"type": "a"}, {"type": "b"}, {"type": "z"}, None]
    batch = applied(rules, *[like(t=1, v=2)] * 4, attributes=given)
    assert values(batch, "t", "v") == [(1.0, None), (None, 2)]
    assert dropped(batch) == ["choose"] * 2
    assert len(set(digests(batch))) == 2  # read in another way, so another record


# Private values


@pytest.mark.parametrize("privacy", ["hash", "redact"])
def test_a_value_is_private_in_messages_of_every_type(privacy):
    secret = field("s", "string", privacy=privacy, path="who.mail", aliases=["mail"])
    rules = typed(a='["t", "s"]', rest=secret)
    batch = applied(
        rules,
        like(kind="b", mail=SECRET, who={"mail": SECRET, "x": 1}),
        like(kind="b", who=5),
        like(kind="a", t=1, mail=SECRET),
    )
    assert values(batch, "_rescued") == ['{"who":{"x":1}}', '{"who":5}', None]
    assert SECRET not in repr(batch.rows.to_pylist())


def test_a_value_in_a_list_is_private_too():
    secret = field("s", "string", privacy="hash", path=["who", 0, "mail"])
    batch = applied(
        typed(a='["t", "s"]', rest=secret),
        like(kind="b", who=[{"mail": SECRET, "x": 1}, 2]),
        like(kind="b", who={"mail": "not there"}),
        like(kind="b", who=[SECRET]),
    )
    assert values(batch, "_rescued") == [
        '{"who":[{"x":1},2]}',
        '{"who":{"mail": "not there"}}',
        '{"who":["a secret"]}',
    ]


def test_what_another_version_hides_may_lie_where_this_one_has_something_else():
    newer = contract(
        '[schema]\npath = "schema"\n'
        + field("s", "string", privacy="hash", path=["who", 0])
        + field("u", "string", privacy="hash", path="a.b"),
        top="version = 2",
    )
    older = contract(
        '[schema]\npath = "schema"\n' + field("w", "string", path="who.name") + field("a", "int64"),
        top="version = 1",
    )
    rules = Transform(newer, older=(older,))
    batch = applied(rules, like(schema=1, who={"name": "x", "y": 1}, a=5), like(who=[SECRET, 1]))
    assert values(batch, "w", "a", "_rescued") == [
        ("x", 5, '{"who":{"y":1}}'),
        (None, None, '{"who":[null,1]}'),
    ]


def test_a_type_that_is_private_is_not_told():
    for where, keys in (('path = "kind"', {}), ('attribute = "kind"', {"attribute": "kind"})):
        rules = typed(where, rest=field("kind", "string", privacy="redact", **keys))
        batch = applied(rules, like(kind=SECRET), attributes=[{"kind": SECRET}])
        assert details(batch) == ["the message names type not shown"]


# Lists of readings


def listed(path='"rs"', empty="reject", rest="", top="", fields=""):
    return contract(
        f'[explode]\npath = {path}\nempty = "{empty}"\n'
        + rest
        + (fields or field("v", "float64", path="value", of="reading", required=True)),
        top=top,
    )


def test_every_reading_is_a_row_and_a_bad_one_is_rejected_alone():
    batch = applied(listed(), like(rs=[1, "a", None, {"value": 3}, [1], {}]))
    assert values(batch, "d", "v", "_child") == [("a", 1.0, 0), ("a", 3.0, 3)]
    assert refused(batch) == [
        ("check", "wrong_type", "v"),
        ("check", "missing_field", "v"),
        ("check", "wrong_type", "v"),
        ("check", "missing_field", "v"),
    ]
    bodies = sorted(batch.rejects.column("_body").to_pylist())
    assert bodies == [b'"a"', b"[1]", b"null", b"{}"]
    assert (batch.counts.delivered, batch.counts.quarantined) == (0, 1)


@pytest.mark.parametrize(
    ("rs", "reason"),
    [
        ([], "no_readings"),
        (None, "missing_field"),
        (3, "wrong_type"),
        ({"value": 1}, "wrong_type"),
        ("[1]", "wrong_type"),
    ],
)
def test_a_message_without_a_list_is_rejected_whole(rs, reason):
    for path, message in (('"rs"', like(rs=rs)), ('"a.rs"', like(a={"rs": rs}))):
        batch = applied(listed(path), message)
        assert refused(batch) == [("check", reason, None)]
        assert batch.rejects.column("_body").to_pylist() == [json.dumps(message).encode()]
    assert refused(applied(listed(), like())) == [("check", "missing_field", None)]
    assert refused(applied(listed('"a.rs"'), like(a=None))) == [("check", "missing_field", None)]


def test_a_message_with_an_empty_list_may_be_dropped():
    batch = applied(listed(empty="drop"), like(rs=[]), like(rs=[1]), like(d="", rs=[]), like())
    assert dropped(batch) == ["explode"]
    assert values(batch, "v") == [1.0]
    assert refused(batch) == [("check", "missing_field", "d"), ("check", "missing_field", None)]


@pytest.mark.parametrize(
    ("list_text", "reason"),
    [
        (b'["\xff",1]', "not_utf8"),
        (b"[1e999,1]", "not_finite"),
        (b"[NaN]", "not_finite"),
        (b"[1,]", "malformed_json"),
        (b'["\\ud800"]', "lone_surrogate"),
    ],
)
@pytest.mark.parametrize("more", [b"", b',"x":1'])
def test_a_message_must_be_json_in_its_list_too(list_text, reason, more):
    body = b'{"d":"a","at":0,"rs":%s%s}' % (list_text, more)
    assert refused(applied(listed(), body)) == [("decode", reason, None)]


def test_fields_of_the_message_and_of_the_reading_stand_apart():
    fields = (
        field("v", "float64", of="reading")
        + field("unit", "string", of="reading", default="Cel")
        + field("firmware", "string", path="v")
        + field("sum", "float64", expr="v + _reading")
    )
    batch = applied(listed(fields=fields), like(v="1.2", rs=[{"v": 1}, {"v": 2, "unit": "K"}]))
    assert values(batch, "firmware", "v", "unit", "sum") == [
        ("1.2", 1.0, "Cel", 1.0),
        ("1.2", 2.0, "K", 3.0),
    ]


def test_device_and_time_may_be_of_the_reading():
    rules = contract(
        '[explode]\npath = "rs"\n',
        device='of = "reading"',
        time='of = "reading"\n' + SECONDS,
    )
    batch = applied(rules, {"rs": [like(), like(d=""), like(at=AT + 301), {"d": "a"}]})
    assert values(batch, "_record_id", "_child") == [("a/2026-11-24T12:00:00.000000Z", 0)]
    assert refused(batch) == [
        ("check", "missing_field", "d"),
        ("check", "future_time", "at"),
        ("check", "missing_field", "at"),
    ]


@pytest.mark.parametrize(("path", "key"), [('"rs"', "rs"), ('["a", "r.s"]', "a.r.s")])
def test_what_is_unknown_is_kept_with_its_level(path, key):
    def message(readings, **more):
        return like(rs=readings, **more) if key == "rs" else like(a={"r.s": readings}, **more)

    batch = applied(
        listed(path),
        message([{"value": 1, "x": 2}, {"value": 1}], x=1),
        message([{"value": 1, "x": 2}]),
    )
    found = [one and json.loads(one) for one in values(batch, "_rescued")]
    assert found == [{"x": 1, key: {"x": 2}}, {"x": 1}, {key: {"x": 2}}]


@pytest.mark.parametrize("unknown", ["drop", "reject"])
def test_what_is_unknown_in_a_reading_is_dropped_or_rejects_it_alone(unknown):
    rules = listed(top=f'unknown = "{unknown}"')
    batch = applied(rules, like(rs=[{"value": 1, "x": 2}, {"value": 1}]), like(rs=[1], x=1))
    bad = [("check", "unknown_field", None)] * 2
    assert refused(batch) == (bad if unknown == "reject" else [])
    assert values(batch, "_rescued") == [None] * (1 if unknown == "reject" else 3)


def test_readings_in_every_layer_are_numbered_in_their_record():
    def message(*readings):
        return json.dumps(like(rs=readings)).encode()

    inner = b"[%s,3,%s]" % (message(1, "a"), message(2))
    batch = applied(listed(), aggregate([("k", inner), ("l", message(4, 5))]), message(6))
    assert values(batch, "_index", "_sub", "_child", "v", "_elements") == [
        (0, 0, 0, 1.0, 6),
        (0, 0, 3, 2.0, 6),
        (0, 1, 0, 4.0, 6),
        (0, 1, 1, 5.0, 6),
        (1, 0, 0, 6.0, 1),
    ]
    places = batch.rejects.select(["_sub", "_child", "_body", "_partition_key"]).to_pylist()
    assert [tuple(row.values()) for row in places] == [(0, 1, b'"a"', "k"), (0, 2, b"3", "k")]


def test_what_cannot_be_opened_has_its_place_among_readings():
    wrapped = json.dumps(
        {"Type": "Notification", "TopicArn": "t", "Message": 5, "MessageId": "m"}
    ).encode()
    good = json.dumps(like(rs=[1, 2])).encode()
    rules = listed(rest='[envelope]\nunwrap = ["sns"]\n')
    batch = applied(rules, b"[%s,%s,%s]" % (good, wrapped, good))
    assert values(batch, "_child") == [0, 1, 3, 4]
    assert batch.rejects.column("_child").to_pylist() == [2]
    assert refused(batch) == [("envelope", "bad_wrapper", None)]


def test_a_list_comes_to_no_more_rows_than_its_record_is_worth():
    def body(count):
        return json.dumps(like(rs=[1] * count), separators=(",", ":")).encode()

    always, more = body(ELEMENTS_ALWAYS), body(ELEMENTS_ALWAYS + 1)
    assert len(more) < READING_BYTES_MIN * ELEMENTS_ALWAYS
    batch = applied(listed(), always, more, b"[%s,%s]" % (body(20), body(20)))
    assert batch.rows.num_rows == ELEMENTS_ALWAYS + 20
    assert refused(batch) == [("envelope", "too_many_elements", None)] * 2
    assert details(batch)[0] == f"33 readings in {len(more)} bytes; at most 32 are read"
    assert rows_max(8_000_000, 5) == 1_000_000
    assert rows_max(8_000_000, 500) == 80_000


# Versions side by side


def versioned(where='path = "schema"', top="", **fields):
    rest = "".join(field(name, kind) for name, kind in fields.items())
    return contract(f"[schema]\n{where}\n{rest}", top=top)


OLD = versioned(top="version = 1", t="float64", gone="string")
NEW = versioned(top="version = 2", t="float64", fresh="int64")
BOTH = Transform(NEW, older=(OLD,))


def test_a_message_is_read_by_the_version_it_names():
    batch = applied(
        BOTH,
        like(t=1, gone="x", fresh=1),
        like(t=1, gone="x", fresh=1, schema=1),
        like(t=1, gone="x", fresh=1, schema="fleet@2"),
        like(gone=5, schema=None),
        like(gone=5, schema="v1"),
    )
    assert values(batch, "_schema", "t", "fresh", "gone", "_rescued") == [
        (2, 1.0, 1, None, '{"gone":"x"}'),
        (1, 1.0, None, "x", '{"fresh":1}'),
        (2, 1.0, 1, None, '{"gone":"x"}'),
        (2, None, None, None, '{"gone":5}'),
    ]
    assert refused(batch) == [("check", "wrong_type", "gone")]
    assert [f.name for f in batch.rows.schema][:5] == ["d", "at", "t", "fresh", "gone"]


@pytest.mark.parametrize("named", [3, "v0", "other@1", "one", "1.0", "9" * 20, ""])
def test_a_version_that_is_not_here_is_told(named):
    batch = applied(BOTH, like(schema=named))
    assert refused(batch) == [("check", "unknown_schema", None)]
    assert details(batch) == [f"the message names version {str(named)!r}; here are 1, 2"]


def test_versions_are_named_in_many_ways():
    for text in ("3", "v3", "fleet@3", "fleet/v3", "fleet:3", "03"):
        assert version_named(text, "fleet") == 3
    for text in ("", "v", "3.0", "-3", "٣", "fleet", "fleet@", "other@3", "fleet@3@3", "9" * 9):
        assert version_named(text, "fleet") is None


def test_a_version_may_be_named_by_an_attribute():
    rules = Transform(
        versioned('attribute = "v"', top="version = 2", fresh="int64"),
        older=(versioned('attribute = "v"', top="version = 1", gone="string"),),
    )
    body = like(gone="x", fresh=1)
    batch = applied(rules, *[body] * 4, attributes=[{"v": "1"}, {"v": "2"}, None, {"v": "5"}])
    assert values(batch, "_schema", "gone", "fresh") == [(1, "x", None), (2, None, 1), (2, None, 1)]
    assert refused(batch) == [("check", "unknown_schema", None)]
    assert len(set(digests(batch))) == 3


def test_what_one_version_hides_no_other_shows():
    hidden = contract(
        '[schema]\npath = "schema"\n' + field("s", "string", privacy="hash"), top="version = 2"
    )
    rules = Transform(hidden, older=(versioned(top="version = 1", t="float64"),))
    batch = applied(rules, like(s=SECRET, schema=1, x=1), like(s=SECRET))
    assert values(batch, "_rescued") == ['{"x":1}', None]
    assert SECRET not in repr(batch.rows.to_pylist())


def test_rows_of_several_plans_stay_in_their_order():
    batch = applied(BOTH, *(like(t=n, schema=1 + n % 2) for n in range(20)))
    assert values(batch, "t") == [float(n) for n in range(20)]


def test_each_version_has_its_own_verbs():
    old = contract(
        '[schema]\npath = "schema"\n[[filter]]\nname = "old"\ndrop = "t > 5"\n'
        '[explode]\npath = "rs"\n' + field("t", "float64", of="reading"),
        top="version = 1",
    )
    rules = Transform(versioned(top="version = 2", t="float64"), older=(old,))
    batch = applied(rules, like(t=9), like(schema=1, rs=[{"t": 9}, {"t": 1}]), like(schema=1))
    assert values(batch, "_schema", "t", "_child") == [(2, 9.0, 0), (1, 1.0, 1)]
    assert dropped(batch) == ["old"]
    assert refused(batch) == [("check", "missing_field", None)]


# What a Delivery costs that uses nothing


def test_the_quick_look_at_a_whole_delivery_says_what_each_body_says():
    lines = [json.dumps(like(d=str(n))).encode() for n in range(3)]
    rules = contract()
    for bodies in (lines, [*lines, lines[0] + b"\n"], [*lines, b"\n".join(lines)], [], [b""]):
        raw = delivery(bodies).table()
        batch = Transform(rules).apply(raw, "raw/x")
        alone = [Transform(rules).apply(raw.slice(n, 1), "raw/x") for n in range(len(bodies))]
        assert batch.rows.num_rows == sum(one.rows.num_rows for one in alone)
        assert batch.rejects.num_rows == sum(one.rejects.num_rows for one in alone)
        rows = [row for one in alone for row in values(one, "_record_id", "_digest", "_child")]
        assert values(batch, "_record_id", "_digest", "_child") == rows
