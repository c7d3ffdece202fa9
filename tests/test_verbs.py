"""What contracts make of single values and of whole rows: each key, its edges and its reasons."""

import hashlib
import hmac
import json
import math
from datetime import UTC, datetime

import pytest

from tests.support import NOON, SECOND
from tests.verbs import (
    AT,
    BASE,
    KEY,
    SECONDS,
    applied,
    contract,
    details,
    dropped,
    field,
    like,
    refused,
    values,
)
from transform.contract_file import ContractError
from transform.pipeline import Transform
from transform.tables import hot_mask


def moment(seconds):
    return datetime.fromtimestamp(seconds, UTC)


# Aliases


ALIASED = contract(
    field("t", "float64", path="now.t", aliases=["t", "old.t"], required=True, min=0, max=9)
    + field("n", "int64", aliases=["m"], default=7)
)


@pytest.mark.parametrize(
    ("members", "wanted"),
    [
        ({"now": {"t": 1}, "t": 2, "old": {"t": 3}}, (1.0, 7)),
        ({"now": {"t": None}, "t": 2, "old": {"t": 3}}, (2.0, 7)),
        ({"now": None, "t": None, "old": {"t": 3}}, (3.0, 7)),
        ({"old": {"t": 0}, "m": 5}, (0.0, 5)),
        ({"t": 1, "n": None, "m": None}, (1.0, 7)),
        ({"t": 1, "n": 0, "m": 5}, (1.0, 0)),
        ({"t": 1, "x": 2}, (1.0, 7)),
    ],
)
def test_the_first_place_that_has_a_value_counts(members, wanted):
    assert values(applied(ALIASED, like(**members)), "t", "n") == [wanted]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"now": {}}, "missing_field"),
        ({"t": None, "old": {"t": None}}, "missing_field"),
        ({"t": 10}, "out_of_range"),
        ({"old": {"t": "warm"}}, "wrong_type"),
        ({"now": {"t": 1}, "old": {"t": -1}}, "out_of_range"),  # wherever a value is, it is judged
        ({"now": 3}, "wrong_type"),
    ],
)
def test_an_alias_is_judged_as_its_field(members, reason):
    assert refused(applied(ALIASED, like(**members))) == [("check", reason, "t")]


def test_what_an_alias_holds_is_not_rescued():
    assert values(applied(ALIASED, like(t=1, old={"t": 2, "u": 3})), "_rescued") == [
        '{"old":{"u":3}}'
    ]


def test_the_device_and_the_time_may_have_aliases():
    batch = applied(
        contract(device='aliases = ["id"]', time='aliases = ["ts"]\n' + SECONDS),
        {"id": "a", "ts": AT},
        {"id": "", "ts": AT},
        {"id": "a"},
        {"id": "a", "at": None, "ts": "soon"},
    )
    assert values(batch, "d", "at") == [("a", moment(AT))]
    assert refused(batch) == [
        ("check", "missing_field", "d"),
        ("check", "missing_field", "at"),
        ("check", "bad_timestamp", "at"),
    ]


# Units


def test_a_value_is_converted_and_judged_by_what_it_is_then():
    rules = contract(
        field("t", "float64", unit="Cel", from_unit="degF", min=-10, max=100, required=True)
    )
    batch = applied(rules, *(like(t=t) for t in (212, 212.5, 14, 13, None, "hot")))
    assert values(batch, "t") == [100.0, -10.0]
    assert refused(batch) == [
        ("check", "out_of_range", "t"),
        ("check", "out_of_range", "t"),
        ("check", "missing_field", "t"),
        ("check", "wrong_type", "t"),
    ]
    assert any("t is 100.2" in detail for detail in details(batch))


def test_a_default_is_in_the_unit_of_the_column():
    plain = field("t", "float64", unit="Cel", from_unit="degF", default=20.0)
    renamed = field("u", "float64", unit="Cel", from_unit="degF", default=20.0, aliases=["v"])
    mixed = field("w", "float64", unit="Cel", default=20.0, aliases=[{"path": "x", "unit": "degF"}])
    rules = contract(plain + renamed + _inline(mixed))
    batch = applied(rules, like(), like(t=212, v=212, x=212), like(t=None, u=None, w=None))
    assert values(batch, "t", "u", "w") == [(20.0,) * 3, (100.0,) * 3, (20.0,) * 3]


def _inline(text):
    """JSON's objects as TOML's inline tables."""
    return text.replace('"path": ', "path = ").replace('"unit": ', "unit = ")


def test_each_alias_may_have_its_own_unit():
    aliases = ["c", {"path": "f", "unit": "degF"}, {"path": "k", "unit": "K"}]
    rules = contract(
        _inline(field("t", "float64", unit="Cel", from_unit="mK", aliases=aliases, max=100))
    )
    messages = ({"t": 1500}, {"c": 1500}, {"f": 212}, {"k": 273.15}, {"t": 0, "f": 1}, {"f": 213})
    batch = applied(rules, *(like(**message) for message in messages))
    assert values(batch, "t") == pytest.approx([-271.65, -271.65, 100.0, 0.0, -273.15])
    assert refused(batch) == [("check", "out_of_range", "t")]


def test_an_alias_in_the_unit_of_the_column_is_not_converted():
    aliases = [{"path": "c", "unit": "Cel"}]
    rules = contract(_inline(field("t", "float64", unit="Cel", from_unit="degF", aliases=aliases)))
    assert values(applied(rules, like(c=20), like(t=212)), "t") == [20.0, 100.0]


@pytest.mark.parametrize("aliases", [[], [{"path": "u", "unit": "mm"}]])
def test_what_overflows_in_its_new_unit_is_rejected_alone(aliases):
    rules = contract(_inline(field("t", "float64", unit="mm", from_unit="km", aliases=aliases)))
    batch = applied(rules, like(t=1e308), like(t=1))
    assert values(batch, "t") == [1e6]
    assert refused(batch) == [("check", "not_finite", "t")]


# Attributes


def test_fields_of_every_type_may_be_attributes():
    rules = contract(
        field("s", "string", attribute="S")
        + field("i", "int64", attribute="I", min=0, default=3)
        + field("f", "float64", attribute="F")
        + field("b", "bool", attribute="B")
        + field("t", "timestamp", attribute="T", format="iso8601")
        + field("e", "timestamp", attribute="E", format="epoch_millis")
    )
    good = {"S": "7", "I": " 7 ", "F": "1e3", "B": "true", "E": "1000", "T": "2026-11-24T12:00:00Z"}
    batch = applied(rules, like(), like(s="x"), attributes=[good])
    assert values(batch, "s", "i", "f", "b", "t", "e") == [
        ("7", 7, 1000.0, True, moment(AT), moment(1)),
        (None, 3, None, None, None, None),
    ]
    assert values(batch, "_rescued") == [None, '{"s":"x"}']
    for name, text, reason in (
        ("I", "7.5", "wrong_type"),
        ("I", "", "wrong_type"),
        ("I", "null", "wrong_type"),
        ("I", "-1", "out_of_range"),
        ("I", "9" * 30, "out_of_range"),
        ("F", "NaN", "wrong_type"),
        ("F", "1e999", "not_finite"),
        ("B", "yes", "wrong_type"),
        ("T", "soon", "bad_timestamp"),
        ("E", "", "bad_timestamp"),
    ):
        found = refused(applied(rules, like(), attributes=[{name: text}]))
        assert [(reason, name.lower())] == [(r, f) for _, r, f in found], (name, text)


def test_a_required_attribute_that_is_absent_is_missing():
    rules = contract(field("s", "string", attribute="S", required=True))
    batch = applied(rules, like(s="x"), like(), attributes=[{"T": "x"}])
    assert refused(batch) == [("check", "missing_field", "s")] * 2
    assert details(batch) == ["attribute S is absent"] * 2


def test_a_device_that_is_an_attribute_must_fit_a_key():
    batch = applied(
        contract(device='attribute = "device"'),
        *({"at": AT} for _ in range(4)),
        attributes=[{"device": "a"}, {"device": ""}, {"device": "x" * 1025}, None],
    )
    assert values(batch, "_record_id") == ["a/2026-11-24T12:00:00.000000Z"]
    assert refused(batch) == [
        ("check", "missing_field", "d"),
        ("check", "too_long", "d"),
        ("check", "missing_field", "d"),
    ]


# Expressions


def derived(kind, expression, **keys):
    return contract(
        field("a", "float64")
        + field("n", "int64")
        + field("s", "string")
        + field("made", kind, expr=expression, **keys)
    )


@pytest.mark.parametrize(
    ("kind", "expression", "members", "wanted"),
    [
        ("float64", "a * 1.8 + 32", {"a": 100}, 212.0),
        ("float64", "a * 1.8 + 32", {}, None),
        ("float64", "a / n", {"a": 1, "n": 0}, None),
        ("float64", "n", {"n": 2**53 + 1}, float(2**53)),
        ("int64", "n + 1", {"n": 2**63 - 1}, None),
        ("string", "upper(s)", {"s": "é"}, "É"),
        ("bool", "a > 1 or n > 1", {"a": 2}, True),
        ("timestamp", "timestamp(n)", {"n": AT}, moment(AT)),
        ("timestamp", "timestamp(n)", {"n": 10**12}, None),
        ("int64", "_reading", {}, 0),
    ],
)
def test_a_field_may_be_made_of_others(kind, expression, members, wanted):
    assert values(applied(derived(kind, expression), like(**members)), "made") == [wanted]


def test_what_has_no_value_has_the_default_or_is_rejected_if_it_must_have_one():
    default = applied(derived("float64", "1 / a", default=5.0), like(a=0), like(a=2), like())
    assert values(default, "made") == [5.0, 0.5, 5.0]
    required = applied(derived("float64", "1 / a", required=True), like(a=0), like(a=2), like())
    assert values(required, "made") == [0.5]
    assert refused(required) == [("check", "no_value", "made")] * 2


def test_what_is_made_is_judged_too():
    ranged = applied(derived("int64", "n * 2", min=0, max=4), *(like(n=n) for n in (-1, 0, 2, 3)))
    assert values(ranged, "made") == [0, 4]
    assert refused(ranged) == [("check", "out_of_range", "made")] * 2
    listed = applied(
        derived("string", "lower(s)", allowed=["on", "off"]), like(s="ON"), like(s="up"), like()
    )
    assert values(listed, "made") == ["on", None]
    assert refused(listed) == [("check", "not_allowed", "made")]


def test_what_is_made_may_be_made_of_what_was_made_before_and_by_its_name_no_member():
    rules = contract(
        field("a", "float64", unit="Cel", from_unit="degF")
        + field("b", "float64", expr="a + 1")
        + field("c", "float64", expr="b + 1")
    )
    batch = applied(rules, like(a=32, b=50))
    assert values(batch, "a", "b", "c", "_rescued") == [(0.0, 1.0, 2.0, '{"b":50}')]


def test_the_identity_may_be_made():
    rules = contract(
        field("n", "int64") + field("s", "string"),
        device='expr = "substring(s, 1)"',
        time='expr = "timestamp(n)"',
    )
    messages = ({"s": "-a", "n": AT}, {"s": "-", "n": AT}, {"n": AT}, {"s": "-a"})
    batch = applied(rules, *messages, {"s": "-a", "n": AT + 301}, {"s": "x" * 1026, "n": AT})
    assert values(batch, "_record_id") == ["a/2026-11-24T12:00:00.000000Z"]
    assert refused(batch) == [
        ("check", "missing_field", "d"),
        ("check", "no_value", "d"),
        ("check", "no_value", "at"),
        ("check", "future_time", "at"),
        ("check", "too_long", "d"),
    ]


# Filters


def test_a_rule_drops_what_it_says_and_nothing_is_not_true():
    rules = contract(
        '[[filter]]\nname = "quiet"\ndrop = "n < 5"\n'
        '[[filter]]\nname = "live"\nkeep = "live"\n' + field("n", "int64") + field("live", "bool")
    )
    messages = [{"n": n, "live": live} for n in (4, 5, None) for live in (True, False, None)]
    batch = applied(rules, *(like(**message) for message in messages))
    assert values(batch, "n", "live") == [(5, True), (None, True)]
    by_place = batch.drops.select(["_index", "_rule"]).to_pylist()
    assert sorted(tuple(row.values()) for row in by_place) == [
        *((n, "quiet") for n in (0, 1, 2)),
        *((n, "live") for n in (4, 5, 7, 8)),
    ]
    assert batch.counts.dropped == 7


def test_what_is_rejected_is_dropped_by_no_rule():
    rules = contract(
        '[[filter]]\nname = "never"\ndrop = "True"\n'
        + field("m", "int64", expr="n", max=1)
        + field("n", "int64")
    )
    batch = applied(rules, like(n=2), like(n=1), like(n="x"))
    assert refused(batch) == [("check", "out_of_range", "m"), ("check", "wrong_type", "n")]
    assert dropped(batch) == ["never"]


def test_rules_see_values_that_nobody_else_does_and_the_arrival():
    rules = contract(
        '[[filter]]\nname = "test"\ndrop = "s == \'test\'"\n'
        '[[filter]]\nname = "old"\ndrop = "seconds_between(at, _arrival) > 60"\n'
        + field("s", "string", privacy="hash")
    )
    batch = applied(rules, like(s="test"), like(s="x"), like(at=AT - 61))
    assert dropped(batch) == ["test", "old"]
    assert batch.rows.num_rows == 1


# Privacy


SECRET = "a secret"


def nowhere(batch, secret=SECRET):
    """A value is in no column but the whole bodies of quarantine."""
    for table in (batch.rows, batch.rejects, batch.drops):
        for name in table.column_names:
            text = repr(table.column(name).to_pylist())
            assert name == "_body" or secret not in text, name


@pytest.mark.parametrize("privacy", ["hash", "redact"])
@pytest.mark.parametrize(
    ("keys", "members", "reason"),
    [
        ({}, {"s": SECRET}, None),
        ({"required": True}, {"s": SECRET}, None),
        ({"path": "a.b"}, {"a": {"b": SECRET, "c": 1}}, None),
        ({"aliases": ["t"]}, {"t": SECRET}, None),
        ({"aliases": ["t"]}, {"s": SECRET, "t": SECRET}, None),
        ({"allowed": ["x"]}, {"s": SECRET}, "not_allowed"),
        ({"allowed": ["x"], "aliases": ["t"]}, {"t": SECRET}, "not_allowed"),
        ({"default": SECRET}, {}, None),
        ({"path": "a.b"}, {"a": SECRET}, "wrong_type"),
        ({}, {"s": [SECRET]}, "wrong_type"),
        ({"expr": "lower(u)", "allowed": ["x"]}, {"u": SECRET}, "not_allowed"),
    ],
)
def test_what_is_private_is_in_no_table(privacy, keys, members, reason):
    rules = contract(
        field("s", "string", privacy=privacy, **keys) + field("u", "string", privacy=privacy)
    )
    batch = applied(rules, like(**members))
    nowhere(batch)
    assert [found for _, found, _ in refused(batch)] == ([reason] if reason else [])
    if reason:
        assert SECRET.encode() in batch.rejects.column("_body")[0].as_py()


def test_a_hash_tells_equal_values_and_needs_the_key():
    rules = contract(field("s", "string", privacy="hash"))
    told = hmac.new(KEY, SECRET.encode(), hashlib.sha256).hexdigest()[:32]
    empty = hmac.new(KEY, b"", hashlib.sha256).hexdigest()[:32]
    batch = applied(rules, like(s=SECRET), like(s=SECRET), like(s=""), like())
    assert values(batch, "s") == [told, told, empty, None]
    other = applied(Transform(rules, hash_key=b"another"), like(s=SECRET))
    assert values(other, "s") not in ([told], [SECRET])


def test_what_is_redacted_is_null_whatever_its_type():
    kinds = ("string", "int64", "float64", "bool")
    good = {"string": "x", "int64": 7, "float64": 7.5, "bool": True}
    rules = contract("".join(field(kind[0], kind, privacy="redact") for kind in kinds))
    batch = applied(rules, like(**{kind[0]: good[kind] for kind in kinds}))
    assert values(batch, *(kind[0] for kind in kinds)) == [(None,) * 4]
    wrong = applied(rules, like(i=1234567.5), like(f="1234567"))
    nowhere(wrong, "1234567")
    assert refused(wrong) == [("check", "wrong_type", "i"), ("check", "wrong_type", "f")]


def test_a_hidden_time_is_in_no_detail():
    rules = contract(field("t", "timestamp", format="iso8601", privacy="redact", path="born"))
    batch = applied(rules, like(born="2001-02-03T04:05:06Z"), like(born="2001-02-30T04:05:06Z"))
    nowhere(batch, "2001")
    assert refused(batch) == [("check", "bad_timestamp", "t")]


def test_a_hashed_device_is_hashed_in_the_record_id_too():
    rules = contract(device='privacy = "hash"')
    batch = applied(rules, like(d=SECRET), like(d=SECRET * 200))
    nowhere(batch)
    [device] = values(batch, "d")
    assert values(batch, "_record_id") == [f"{device}/2026-11-24T12:00:00.000000Z"]
    assert refused(batch) == [("check", "too_long", "d")]


def test_a_private_attribute_is_in_no_table():
    rules = contract(field("s", "string", attribute="S", privacy="hash", allowed=["x"]))
    batch = applied(rules, like(), attributes=[{"S": SECRET}])
    nowhere(batch)
    assert refused(batch) == [("check", "not_allowed", "s")]


# Time, samples, and what is kept hot


@pytest.mark.parametrize(("late", "wanted"), [(60, False), (61, True), (-300, False)])
def test_rows_say_how_far_their_times_are_apart(late, wanted):
    rules = contract("[limits]\nmax_lateness_seconds = 60\n")
    batch = applied(rules, like(at=AT - late))
    assert values(batch, "_skew", "_late") == [(late * SECOND, wanted)]
    assert values(applied(contract(), like(at=AT - late)), "_late") == [False]


def test_a_sample_is_a_function_of_the_record_id():
    rules = contract("[sample]\nkeep = 0.3\n")
    messages = [like(d=f"d{number}", x=x) for number in range(1_000) for x in (1, 2)]
    batch = applied(rules, *messages)
    kept = values(batch, "d")
    assert set(dropped(batch)) == {"sample"}
    assert all(kept.count(device) == 2 for device in kept)  # both of an id, whatever their bytes
    assert 500 < len(kept) < 700
    alone = [applied(rules, message).rows.num_rows for message in messages[:60]]
    assert alone == [int(message["d"] in kept) for message in messages[:60]]


def test_a_condition_and_the_age_say_what_is_hot():
    rules = contract('[hot]\nttl_days = 1\nwhen = "n > 2"\n' + field("n", "int64"))
    batch = applied(rules, like(n=3), like(n=2), like(), like(n=3, at=AT - 86_400))
    assert hot_mask(batch.rows, rules).to_pylist() == [True, False, False, False]
    assert batch.hot_rows == 1


def test_hot_fields_keep_the_identity():
    rules = contract('[hot]\nfields = ["n"]\n' + field("n", "int64") + field("m", "int64"))
    assert [f.name for f in rules.hot_columns] == ["d", "at", "n"]


@pytest.mark.parametrize("privacy", ["hash", "redact"])
def test_what_is_hot_cannot_depend_on_what_is_hidden(privacy):
    with pytest.raises(ContractError, match="hot: when: field 's' is hidden"):
        contract("[hot]\nwhen = \"s == 'x'\"\n" + field("s", "string", privacy=privacy))


# All of them


def test_no_verb_looks_beyond_its_row():
    """Each message alone, and with others before and behind it, comes to the same."""
    rules = contract(
        '[[filter]]\nname = "low"\ndrop = "n < 0"\n'
        + _inline(
            field("t", "float64", unit="Cel", aliases=[{"path": "f", "unit": "degF"}], max=50)
        )
        + field("n", "int64", default=1)
        + field("r", "float64", expr="t / n", required=True)
        + field("s", "string", privacy="hash")
    )
    messages = [
        like(d=f"d{n}", n=n, s=str(n), **{name: value})
        for n in (-1, 0, 1, 2)
        for name, value in (("t", 10), ("f", 50), ("t", 60), ("x", 1), ("t", math.pi))
    ]
    together = fates(applied(rules, *messages))
    alone = [fate for message in messages for fate in fates(applied(rules, message))]
    assert alone == together


def fates(batch):
    """What was decided of each message, in their order."""
    own = ["_record_id", "_digest", "t", "n", "r", "s", "_rescued"]
    found = {}
    for table, names in (
        (batch.rows, own),
        (batch.rejects, ["_reason", "_field", "_detail", "_body"]),
        (batch.drops, ["_rule"]),
    ):
        for place, row in zip(
            table.column("_index").to_pylist(), table.select(names).to_pylist(), strict=True
        ):
            found[place] = json.dumps(row, default=repr, sort_keys=True)
    return [found[place] for place in sorted(found)]


def test_the_arrival_is_each_records_own():
    rules = contract("[limits]\nmax_lateness_seconds = 60\n")
    arrivals = [NOON, NOON + 61 * SECOND, NOON - 301 * SECOND]
    batch = applied(rules, like(), like(), like(), arrivals=arrivals)
    assert values(batch, "_late") == [False, True]
    assert refused(batch) == [("check", "future_time", "at")]


# Identity


EXPLODED = '[explode]\npath = ["deep", "rs"]\n' + field("n", "int64", path="n", of="reading")


def test_a_reading_is_the_same_for_a_version_that_knows_more_of_its_message():
    """Else a Delivery that is tried again after a deployment would leave two hot items of it."""
    more = field("note", "string") + field("site", "string", attribute="site", default="none")
    message = {**BASE, "note": "x", "deep": {"rs": [{"n": 1}, {"n": 2}], "y": 1}}
    digests = [
        applied(contract(EXPLODED + added), message).rows.column("_digest").to_pylist()
        for added in ("", more)
    ]
    assert digests[0] == digests[1]
    assert len(set(digests[0])) == 2


@pytest.mark.parametrize(
    "other",
    [
        {**BASE, "note": "y", "deep": {"rs": [{"n": 1}]}},
        {**BASE, "note": "x", "deep": {"rs": [{"n": 1}], "y": 2}},
        {**BASE, "note": "x", "deep": {"rs": [{"n": 1, "m": 2}]}},
    ],
)
def test_a_reading_is_another_where_its_message_says_other_things(other):
    one = {**BASE, "note": "x", "deep": {"rs": [{"n": 1}]}}
    digests = applied(contract(EXPLODED), one, other).rows.column("_digest").to_pylist()
    assert len(set(digests)) == 2


def test_a_list_within_a_list_is_exploded_alone():
    rules = contract('[explode]\npath = ["deep", 0, "rs"]\n' + field("n", "int64", of="reading"))
    batch = applied(rules, *({**BASE, "deep": [{"rs": [{"n": 1}]}, y]} for y in (1, 1, 2)))
    assert len(set(batch.rows.column("_digest").to_pylist())) == 2
