"""Versions side by side, wrappers and SenML packs around drawn messages, against the row oracle.

As in `test_rows`: contracts and messages are drawn from seeds. Whatever is around a message, its
fate is that of the message, at its own place.
"""

import base64
import json
from collections import Counter
from dataclasses import replace
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from tests import drawn_rules
from tests.drawn_rules import Draw, Record, encoded
from tests.row_oracle import CSV, Fate, Rules, Spec, fates, fates_beside
from tests.support import NOON, SECOND
from tests.test_rows import found_in, raw_table, told
from tests.verbs import KEY, conserved, one_file
from transform.contract_file import parse_contract
from transform.pipeline import Transform
from transform.versions import clash

seeds = st.integers(0, 2**32)
MANY = settings(max_examples=500, deadline=None)


def made(rules):
    return parse_contract(rules.text().encode(), "drawn.toml", one_file(CSV))


def placed(record_fates):
    """Fates by record and member, as fates by place."""
    return {
        (index, sub, child): fate
        for index, members in enumerate(record_fates)
        for sub, found in enumerate(members)
        for child, fate in enumerate(found)
    }


# Versions


def versions(seed):
    """Two versions, of which either may be the current one, and records that name one or none."""
    draw = Draw(seed)
    one = drawn_rules.rules(draw)
    other = drawn_rules.beside(draw, one)
    current, older = draw.choice([(one, other), (other, one)])
    return current, older, drawn_rules.records(draw, one, other)


def wanted_of(current, older, records):
    both = {rules.version: rules for rules in (current, older)}
    return placed(
        [
            [fates_beside(both, current, m, r.attributes, r.arrival) for m in r.members]
            for r in records
        ]
    )


@MANY
@given(seeds)
def test_each_message_is_read_by_the_version_that_it_names(seed):
    current, older, records = versions(seed)
    assert clash(made(current), made(older)) is None
    transform = Transform(made(current), 0, (made(older),), KEY)
    batch = transform.apply(raw_table(records), "raw/x")
    conserved(batch)
    names = batch.rows.column_names
    none = dict.fromkeys(names[: names.index("_rescued")])
    expected = {
        place: Fate("row", {**none, **fate.of}) if fate.what == "row" else fate
        for place, fate in wanted_of(current, older, records).items()
    }
    assert found_in(batch) == expected


def test_seeds_reach_every_fate_of_a_version():
    met = Counter()
    for seed in range(300):
        met.update(map(told, wanted_of(*versions(seed)).values()))
    least = ("row", "unknown_schema", "unknown_type", "unknown_field", "choose", "sample", "rule-0")
    assert {name for name in least if met[name] < 5} == set()


# Wrappers

WRAPPERS = ("sns", "eventbridge", "cloudevents")
BAD = (None, {})
"""A wrapper without a message in it."""


def wrapped(draw, kind, body):
    """A body in a wrapper, and what is beside it there; the body itself where it does not fit."""
    if kind == "sns" and body.isascii():
        own = draw.some(0.5, S=["x", "y"], kind=["a", "7"])
        attributes = {name: {"Type": "String", "Value": text} for name, text in own.items()}
        notice = {"Type": "Notification", "TopicArn": "arn", "Message": body.decode()}
        return encoded(notice | {"MessageAttributes": attributes}), own
    if kind == "eventbridge" and _is_object(body):
        return b'{"detail-type": "x", "source": "y", "detail": %s}' % body, {}
    if kind == "cloudevents":
        data = {"data_base64": base64.b64encode(body).decode()}
        return encoded({"specversion": "1.0", "type": "x", "source": "y", "id": "1"} | data), {}
    return body, {}


def _is_object(body):
    try:
        return body.startswith(b"{") and bool(json.loads(body))
    except ValueError:
        return False


def around(draw, rules, kinds):
    """A body, and the messages in it with what is beside each."""
    if draw.happens(0.1):
        return encoded({"Type": "Notification", "TopicArn": "arn"}), [BAD]
    body, messages = drawn_rules._layered(draw, rules)
    beside = {}
    for kind in reversed(kinds):
        if draw.happens(0.7):
            body, own = wrapped(draw, kind, body)
            beside = {**own, **beside}
    return body, [(message, beside) for message in messages]


def wrapped_records(seed):
    draw = Draw(seed)
    kinds = draw.sample(WRAPPERS, draw.randint(1, 3))
    if "sns" not in kinds:
        kinds.append("sns")
    rules = replace(drawn_rules.rules(draw), envelope=f"unwrap = {json.dumps(kinds)}")
    records, inside = [], []
    for _ in range(draw.randint(1, 4)):
        own = draw.some(0.5, S=["x", "z"], kind=["a", "z"])
        body, messages = around(draw, rules, kinds)
        if draw.happens(0.3) and _is_object(body):
            more, others = around(draw, rules, kinds)
            if _is_object(more):
                body, messages = b"[" + body + b", " + more + b"]", [*messages, *others]
        records.append(Record(body, [], own))
        inside.append(messages)
    return rules, records, inside


def wanted_inside(rules, records, inside):
    found = []
    for record, messages in zip(records, inside, strict=True):
        fate = []
        for body, beside in messages:
            bad = [Fate("reject", ("envelope", "bad_wrapper", None))]
            attributes = {**record.attributes, **beside}
            fate += fates(rules, [body], attributes, record.arrival) if body is not None else bad
        found.append([fate])
    return placed(found)


@MANY
@given(seeds)
def test_a_wrapped_message_is_what_it_is_without_its_wrappers(seed):
    rules, records, inside = wrapped_records(seed)
    batch = Transform(made(rules), hash_key=KEY).apply(raw_table(records), "raw/x")
    conserved(batch)
    assert found_in(batch) == wanted_inside(rules, records, inside)


def test_seeds_reach_every_fate_of_what_is_wrapped():
    met = Counter()
    for seed in range(300):
        met.update(map(told, wanted_inside(*wrapped_records(seed)).values()))
    least = ("row", "bad_wrapper", "malformed_json", "choose", "explode", "rule-0", "no_readings")
    assert {name for name in least if met[name] < 5} == set()


# SenML

SENML = Rules(
    fields=[
        Spec("d", "string", ("d",)),
        Spec("at", "timestamp", ("t",), {"format": "epoch_seconds"}),
        Spec("name", "string", ("n",), {"required": True}),
        Spec("unit", "string", ("u",), {"allowed": ["Cel", "V"]}),
        Spec("v", "float64", ("v",), {"max": 100}),
    ],
    envelope='body = "senml"',
    record_id=("d", "at", "name"),
)
BASES = {
    "bn": ["dev:", "other/"],
    "bu": ["Cel", "%"],
    "bt": [NOON // SECOND - 60, -5],
    "bv": [10, 0.5],
}
BAD_BASES = {"bn": 5, "bu": None, "bt": "soon", "bver": 9, "bx_": 1}
BAD_RECORDS = ({"v": 1, "vb": True}, {"n": "no name"}, {"x_": 1}, {"v": "7"}, {"t": "soon"})


def senml_record(draw):
    record = draw.some(0.2, **BASES) | draw.some(0.9, n=["temp", "hum"], d=["a", "b"])
    record |= draw.some(0.3, u=["V", "%", "Cel"], t=[0, -10, 2.5], x=[1], ut=[3])
    record |= draw.choice([{"v": 20}, {"v": 95.5}, {"vs": "open"}, {"vb": False}, {}])
    if draw.happens(0.1):
        record |= draw.choice(BAD_RECORDS)
    if draw.happens(0.04):
        name = draw.choice(list(BAD_BASES))
        record[name] = BAD_BASES[name]
    return record


def resolved(pack):
    """A pack's records by RFC 8428, section 4.6, None where one is bad: as one would say it."""
    bases, broken, found = {}, False, []
    for record in pack:
        broken |= any(name in record and record[name] == bad for name, bad in BAD_BASES.items())
        bases |= {name: record[name] for name in BASES if name in record}
        found.append(None if broken else one_resolved(record, bases))
    return found


def one_resolved(record, bases):
    own = [name for name in ("v", "vs", "vb") if name in record]
    name = bases.get("bn", "") + record.get("n", "")
    bad = not name or " " in name or len(own) > 1 or "x_" in record or record.get("v") == "7"
    if bad or record.get("t") == "soon" or (not own and "bv" not in bases):
        return None
    time = Decimal(str(record.get("t", 0))) + Decimal(str(bases.get("bt", 0)))
    time += Decimal(NOON) / SECOND if time < 2**28 else 0
    made_of = {key: record[key] for key in ("d", "x", "ut", "vs", "vb") if key in record}
    if own in (["v"], []):
        made_of["v"] = record.get("v", 0) + bases.get("bv", 0)
    unit = record.get("u", bases.get("bu"))
    return {"n": name, "t": float(time), **({"u": unit} if unit is not None else {}), **made_of}


@MANY
@given(seeds)
def test_a_pack_is_its_records_resolved(seed):
    draw = Draw(seed)
    packs = [[senml_record(draw) for _ in range(draw.randint(1, 4))] for _ in range(3)]
    bad = Fate("reject", ("envelope", "bad_senml", None))
    expected = placed(
        [
            [
                [
                    fate
                    for one in resolved(pack)
                    for fate in ([bad] if one is None else fates(SENML, [encoded(one)], {}, NOON))
                ]
            ]
            for pack in packs
        ]
    )
    records = [Record(encoded(pack), [], {}) for pack in packs]
    batch = Transform(made(SENML)).apply(raw_table(records), "raw/x")
    conserved(batch)
    assert found_in(batch) == expected
