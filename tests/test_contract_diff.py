"""Each change of a contract is safe or breaking, for somebody, and no key can be forgotten."""

from __future__ import annotations

from dataclasses import fields

import pytest

from infra.contracts.diff import changes
from infra.contracts.diff_rules import CONTRACT_RULES, FIELD_RULES, WRITTEN
from tests.test_contract_mistakes import TOP
from transform.contract import Contract, Field
from transform.contract_file import load_contract, parse_contract

BASE = (
    'unknown = "drop"\n'
    + TOP.replace("[identity]", "version = 2\n[identity]").replace(
        'event_time = "at"',
        'event_time = "at"\nrecord_id = ["device", "at"]\nsequence = "seq"',
    )
    + """
[limits]
max_body_bytes = 1000
max_future_seconds = 60
max_lateness_seconds = 60
[hot]
ttl_days = 7
when = "x > 1"
fields = ["x", "mode"]
[envelope]
unwrap = ["sns"]
[schema]
attribute = "schema"
[choose]
path = "kind"
[[choose.case]]
value = "a"
fields = ["x", "mode", "seq", "other_id"]
[[choose.case]]
value = "b"
fields = ["mode"]
[explode]
path = "list"
[sample]
keep = 0.5
[[filter]]
name = "low"
drop = "x < 0"
[[lookup]]
name = "sites"
file = "sites.csv"
on = "device"
digest = "abc"
[[field]]
name = "site"
type = "string"
lookup = "sites"
[[field]]
name = "twice"
type = "float64"
expr = "warm * 2"
[[field]]
name = "topic"
type = "string"
attribute = "topic"
[[field]]
name = "warm"
type = "float64"
unit = "Cel"
from_unit = "degF"
aliases = ["old.warm"]
privacy = "redact"
[[field]]
name = "part"
type = "string"
of = "reading"
[[field]]
name = "x"
path = "data.x"
type = "int64"
min = 0
max = 10
unit = "V"
[[field]]
name = "mode"
type = "string"
allowed = ["eco", "boost"]
default = "eco"
[[field]]
name = "seq"
type = "int64"
required = true
[[field]]
name = "other_time"
type = "timestamp"
format = "iso8601"
[[field]]
name = "other_id"
type = "string"
required = true
"""
)

BREAKING, SAFE = True, False
P, A, H = "producers", "analysts", "hot readers"

# What is replaced by what; then key, verdict and for whom.
CASES = [
    ('name = "fleet"', 'name = "pumps"', "name", BREAKING, {P, A, H}),
    ("version = 2", "version = 3", "version", SAFE, {A, H}),
    ("version = 2", "version = 1", "version", BREAKING, {A, H}),
    ('device = "device"', 'device = "other_id"', "identity.device", BREAKING, {P, A, H}),
    ('event_time = "at"', 'event_time = "other_time"', "identity.event_time", BREAKING, {P, A, H}),
    ('["device", "at"]', '["seq"]', "identity.record_id", BREAKING, {P, A, H}),
    ('sequence = "seq"\n', "", "identity.sequence", SAFE, {A}),
    ('sequence = "seq"\n', 'sequence = "seq"\nboot = "mode"\n', "identity.boot", SAFE, {A}),
    ("max_body_bytes = 1000", "max_body_bytes = 999", "limits.max_body_bytes", BREAKING, {P}),
    ("max_body_bytes = 1000", "max_body_bytes = 2000", "limits.max_body_bytes", SAFE, {P}),
    (
        "max_future_seconds = 60",
        "max_future_seconds = 0",
        "limits.max_future_seconds",
        BREAKING,
        {P},
    ),
    ("max_future_seconds = 60", "max_future_seconds = 61", "limits.max_future_seconds", SAFE, {P}),
    ("ttl_days = 7", "ttl_days = 6", "hot.ttl_days", BREAKING, {H}),
    ("ttl_days = 7", "", "hot.ttl_days", SAFE, {H}),
    ('path = "data.x"', 'path = "data.y"', "field 'x': path", BREAKING, {P}),
    ('"part"\ntype', '"bit"\npath = "part"\ntype', "field 'part': name", BREAKING, {A, H}),
    ('"part"\ntype', '"bit"\npath = "b"\ntype', "field 'part'", BREAKING, {A, H}),
    ('"part"\ntype', '"bit"\npath = "b"\ntype', "field 'bit'", SAFE, {P, A, H}),
    ('"part"\ntype', '"bit"\npath = "b"\nrequired = true\ntype', "field 'bit'", BREAKING, {P}),
    ('"int64"\nmin = 0', '"float64"\nmin = 0', "field 'x': type", BREAKING, {P, A, H}),
    (
        'other_time"\ntype = "timestamp"\nformat = "iso8601"',
        'other_time"\ntype = "timestamp"\nformat = "epoch_millis"',
        "field 'other_time': format",
        BREAKING,
        {P},
    ),
    ('"int64"\nmin = 0', '"int64"\nrequired = true\nmin = 0', "'x': required", BREAKING, {P}),
    ('"int64"\nrequired = true', '"int64"', "field 'seq': required", BREAKING, {A, H}),
    ('default = "eco"', 'default = "boost"', "field 'mode': default", BREAKING, {A, H}),
    ('default = "eco"', "", "field 'mode': default", BREAKING, {A, H}),
    ("max = 10", "max = 10\ndefault = 5", "field 'x': default", SAFE, {A, H}),
    ("min = 0", "min = 1", "field 'x': min", BREAKING, {P}),
    ("min = 0", "min = -1", "field 'x': min", SAFE, {P}),
    ("min = 0", "", "field 'x': min", SAFE, {P}),
    ("max = 10", "max = 9", "field 'x': max", BREAKING, {P}),
    ("max = 10", "max = 11", "field 'x': max", SAFE, {P}),
    ("max = 10", "", "field 'x': max", SAFE, {P}),
    ('["eco", "boost"]', '["eco"]', "field 'mode': allowed", BREAKING, {P}),
    ('["eco", "boost"]', '["eco", "boost", "off"]', "field 'mode': allowed", SAFE, {P, A, H}),
    ('allowed = ["eco", "boost"]', "", "field 'mode': allowed", SAFE, {P, A, H}),
    ("max = 10", "max = 10\nallowed = [1]", "field 'x': allowed", BREAKING, {P}),
    ('unit = "V"', 'unit = "mV"', "field 'x': unit", BREAKING, {A, H}),
    ('unit = "V"', "", "field 'x': unit", SAFE, {A, H}),
    ("max_lateness_seconds = 60", "", "limits.max_lateness_seconds", SAFE, {A}),
    ('"drop"', '"reject"', "unknown", BREAKING, {P}),
    ('"drop"', '"rescue"', "unknown", SAFE, {P, A, H}),
    ('unwrap = ["sns"]', "", "envelope", BREAKING, {P}),
    ('["sns"]', '["sns", "eventbridge"]', "envelope", SAFE, {P}),
    ("[envelope]", '[envelope]\nbody = "ndjson"', "envelope", BREAKING, {P}),
    ('attribute = "schema"', 'path = "schema"', "schema", BREAKING, {P}),
    ('path = "kind"', 'path = "type"', "choose", BREAKING, {P}),
    ('value = "b"', 'value = ["b", "c"]', "choose", SAFE, {P, A, H}),
    ('value = "b"', 'value = "c"', "choose", BREAKING, {P}),
    ('fields = ["mode"]', 'fields = ["mode", "seq"]', "choose", BREAKING, {P}),
    ('path = "kind"', 'path = "kind"\notherwise = "drop"', "choose", BREAKING, {P}),
    ('path = "list"', 'path = "lists"', "explode", BREAKING, {P, A, H}),
    ('path = "list"', 'path = "list"\nempty = "drop"', "explode", SAFE, {P}),
    ("keep = 0.5", "keep = 0.4", "sample", BREAKING, {A, H}),
    ("keep = 0.5", "keep = 0.6", "sample", SAFE, {A, H}),
    ("x < 0", "x < 1", "filter", BREAKING, {A, H}),
    ('[[filter]]\nname = "low"\ndrop = "x < 0"', "", "filter", SAFE, {A, H}),
    ('digest = "abc"', 'digest = "abd"', "lookup", SAFE, {A, H}),
    ('"sites.csv"', '"places.csv"', "lookup", BREAKING, {A, H}),
    ('when = "x > 1"', "", "hot.when", SAFE, {H}),
    ('when = "x > 1"', 'when = "x > 2"', "hot.when", BREAKING, {H}),
    ('fields = ["x", "mode"]', 'fields = ["x"]', "hot.fields", BREAKING, {H}),
    ('fields = ["x", "mode"]', "", "hot.fields", SAFE, {H}),
    ("ttl_days = 7", 'ttl_days = 7\nlayout = "latest"', "hot.layout", BREAKING, {H}),
    ('["old.warm"]', "[]", "field 'warm': aliases", BREAKING, {P}),
    ('["old.warm"]', '["old.warm", "w"]', "field 'warm': aliases", SAFE, {P}),
    ('"warm"\ntype', '"warm"\npath = "w"\ntype', "field 'warm': path", BREAKING, {P}),
    (
        'unit = "Cel"\nfrom_unit = "degF"\naliases = ["old.warm"]',
        'unit = "Cel"\nfrom_unit = "degF"\npath = "w"\naliases = ["old.warm", "warm"]',
        "field 'warm': path",
        SAFE,
        {P},
    ),
    ('from_unit = "degF"', "", "field 'warm': from_unit", BREAKING, {A, H}),
    ('attribute = "topic"', 'attribute = "t"', "field 'topic': attribute", BREAKING, {P}),
    ("warm * 2", "warm * 3", "field 'twice': expr", BREAKING, {A, H}),
    ('lookup = "sites"', 'lookup = "sites"\ncolumn = "c"', "'site': column", BREAKING, {A, H}),
    ('lookup = "sites"', 'path = "s"', "field 'site': lookup", BREAKING, {A, H}),
    ('"topic"\ntype = "string"', '"topics"\ntype = "string"', "field 'topic'", BREAKING, {A, H}),
    ('privacy = "redact"', "", "field 'warm': privacy", BREAKING, {A, H}),
    ('= "topic"\n[[', '= "topic"\nprivacy = "redact"\n[[', "'topic': privacy", BREAKING, {A, H}),
    ('"mode"\ntype', '"mode"\nof = "reading"\ntype', "field 'mode': of", BREAKING, {P}),
    ("max = 11", "max = 11", None, SAFE, set()),
    ("max = 10", 'max = 10\ndescription = "x"', None, SAFE, set()),
    ("[hot]", '[[example]]\nname="a"\nmessage="{"\nrows=0\n[hot]', None, SAFE, set()),
]


def contract(text: str) -> Contract:
    return parse_contract(text.encode(), "fleet.toml")


@pytest.mark.parametrize(("old", "new", "key", "breaking", "whom"), CASES)
def test_a_change(old, new, key, breaking, whom):
    found = changes(contract(BASE), contract(BASE.replace(old, new, 1)))
    if key is None:
        assert found == []
        return
    told = [one for one in found if key in one.key]
    assert [(one.breaking, set(one.whom)) for one in told[:1]] == [(breaking, whom)]
    assert told[0].why
    assert bool(told[0].todo) == breaking
    broken = any(one.breaking for one in found)
    raised = any("set version = 3" in one.todo for one in found)
    assert raised == (broken and "version" not in old)


@pytest.mark.parametrize(
    ("kind", "rules"), [(Contract, CONTRACT_RULES), (Field, FIELD_RULES)], ids=["contract", "field"]
)
def test_every_key_has_its_rule(kind, rules):
    assert set(rules) == {one.name for one in fields(kind)}


def test_every_rule_has_a_case():
    written = {key for _, _, key, _, _ in CASES if key}
    for name, rule in (CONTRACT_RULES | FIELD_RULES).items():
        key = "ttl_days" if name == "hot_ttl_seconds" else WRITTEN.get(name, name)
        assert rule is None or any(key in one for one in written), key


@pytest.mark.parametrize("name", ["telemetry", "environment-sensors"])
def test_a_contract_does_not_differ_from_itself(name):
    assert changes(load_contract(name), load_contract(name)) == []


def test_breaking_changes_come_first():
    text = BASE.replace("max = 10", "max = 9").replace("min = 0", "min = -1")
    found = changes(contract(BASE), contract(text))
    assert [one.breaking for one in found] == [True, True, False]
