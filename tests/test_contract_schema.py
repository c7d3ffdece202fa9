"""A contract in the words of other tools says what the pipeline does."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.contracts import catalogs
from infra.contracts.json_schema import json_schema
from infra.contracts.markdown import markdown
from infra.contracts.trial import applied
from tests.support import NOON, SOME, items_of
from transform.contract import Contract
from transform.contract_file import SHIPPED, load_contract, parse_contract
from transform.timestamps import LATEST

MORE = settings(SOME, max_examples=400)  # choices multiply
TELEMETRY = load_contract("telemetry")
SHIPPED_NAMES = sorted(path.stem for path in SHIPPED.glob("*.toml"))
EVERYTHING = parse_contract(
    b"""
name = "everything"
description = "It's | all"
[identity]
device = "id"
event_time = "at"
[[field]]
name = "id"
type = "string"
[[field]]
name = "at"
type = "timestamp"
format = "iso8601"
[[field]]
name = "seconds"
path = "times.s"
type = "timestamp"
format = "epoch_seconds"
[[field]]
name = "millis"
path = "times.ms"
type = "timestamp"
format = "epoch_millis"
default = "0"
[[field]]
name = "count"
path = "deep.er.count"
type = "int64"
required = true
min = -2
[[field]]
name = "level"
type = "int64"
allowed = [1, 2, 3]
default = 1
[[field]]
name = "ratio"
path = ["deep", "a.b"]
type = "float64"
min = 0
max = 1
unit = "%"
description = "Share | of"
[[field]]
name = "mode"
type = "string"
allowed = ["eco", "boost"]
[[field]]
name = "on"
type = "bool"
""",
    "everything.toml",
)
VERBS = parse_contract(
    b"""
name = "verbs"
unknown = "reject"
[identity]
device = "id"
event_time = "at"
[choose]
path = "kind"
[[choose.case]]
value = ["a", 7]
fields = ["temp", "v", "n"]
[[choose.case]]
value = true
fields = ["mode"]
[explode]
path = "data.list"
[schema]
path = "meta.version"
[envelope]
unwrap = ["sns"]
[[filter]]
name = "hot"
drop = "temp > 100"
[sample]
keep = 0.5
[hot]
when = "twice > 0"
fields = ["mode"]
[[field]]
name = "id"
type = "string"
aliases = ["device", "data.device"]
[[field]]
name = "at"
type = "timestamp"
format = "epoch_seconds"
of = "reading"
[[field]]
name = "v"
path = "value"
type = "int64"
of = "reading"
[[field]]
name = "n"
type = "string"
of = "reading"
required = true
aliases = ["name"]
[[field]]
name = "temp"
type = "float64"
unit = "Cel"
from_unit = "degF"
required = true
privacy = "redact"
[[field]]
name = "mode"
type = "string"
allowed = ["eco"]
[[field]]
name = "twice"
type = "float64"
expr = "temp * 2"
[[field]]
name = "topic"
attribute = "topic"
type = "string"
""",
    "verbs.toml",
)
BARE = parse_contract(
    b"""
name = "bare"
[identity]
device = "id"
event_time = "at"
[explode]
path = "list"
empty = "drop"
[[field]]
name = "id"
type = "string"
[[field]]
name = "at"
type = "timestamp"
format = "epoch_seconds"
[[field]]
name = "value"
type = "float64"
of = "reading"
required = true
""",
    "bare.toml",
)
VALIDATOR = jsonschema.Draft202012Validator(json_schema(EVERYTHING))

TIMES = ("2026-11-24T10:00Z", "2026-11-24 10:00:00.5+01:00", "2026-11-24T10:00:00", "now", "")
ODD = st.sampled_from(
    [None, True, 0, -3, 7, 2**63, 0.5, 1.5, "", "eco", "7", "1e3", "x" * 50, [], {}]
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "id": st.sampled_from(["a", "x" * 1_024, "x" * 1_025, ""]),
    "at": st.sampled_from(TIMES),
    "s": st.sampled_from([0, 1.5, "17", "1.5e3", "1.", "-4"]),
    "ms": st.sampled_from([10**12, "10", "ten"]),
    "count": st.integers(-4, 3) | st.sampled_from([2**63 - 1, 2**63, -(2**63)]),
    "level": st.integers(0, 4),
    "a.b": st.floats(-0.5, 1.5).filter(lambda number: number != int(number)),
    "mode": st.sampled_from(["eco", "boost", "off"]),
    "on": st.booleans(),
}
PLACES = {
    "s": ("times",),
    "ms": ("times",),
    "count": ("deep", "er"),
    "a.b": ("deep",),
}


@st.composite
def messages(draw: st.DrawFn) -> Any:
    """Messages that are nearly right: each field good, on its edge, odd or absent."""
    message: dict[str, Any] = {"id": "a", "at": TIMES[0], "deep": {"er": {"count": 1}}}
    for key in draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=4)):
        branch = message
        for above in PLACES.get(key, ()):
            branch = branch.setdefault(above, {})
            if not isinstance(branch, dict):
                break
        else:
            branch[key] = draw(FIELDS[key] | ODD)
    for key in draw(st.lists(st.sampled_from([*sorted(message), "more"]), max_size=1)):
        if draw(st.booleans()):
            message.pop(key, None)
        else:
            message[key] = draw(ODD)
    return message


@given(messages())
@SOME
def test_a_message_is_valid_if_and_only_if_it_is_accepted(message):
    assert VALIDATOR.is_valid(message) == accepted(message, EVERYTHING)


def accepted(message: Any, contract: Contract) -> bool:
    """Whether a message is taken whole; one that arrives so late is never of the future."""
    return not applied(contract, [json.dumps(message).encode()], LATEST).rejects.num_rows


def maybe(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from([*values, None, 1.5, "x", [], {}])


def some(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An object with some of these members."""
    return st.fixed_dictionaries({}, optional=members)


BOOLS = (True, False)
READINGS = st.lists(
    some(at=st.just(5), value=maybe(1), n=maybe("a"), name=maybe("b"))
    | st.just({"at": 5, "n": "a"})
    | maybe(4),
    max_size=3,
)
CHOSEN = st.fixed_dictionaries(
    {"kind": maybe("a", 7, "7", *BOOLS, "true", "b")},
    optional={
        "id": maybe("d"),
        "device": maybe("e"),
        "temp": maybe(70),
        "mode": maybe("eco"),
        "meta": maybe({"version": 1}),
        "data": some(list=READINGS | maybe(), device=maybe("f"), more=st.just(1)) | maybe(),
    },
)


@given(CHOSEN)
@MORE
def test_verbs_are_in_the_schema(message):
    valid = jsonschema.Draft202012Validator(json_schema(VERBS)).is_valid(message)
    assert valid == accepted(message, VERBS)


@given(st.lists(maybe(1, 2.5, *BOOLS, {"value": 3}, {"value": None}, {"x": 1}, [1]), max_size=3))
@SOME
def test_a_list_of_bare_values_is_in_the_schema(values):
    message = {"id": "a", "at": 5, "list": values}
    valid = jsonschema.Draft202012Validator(json_schema(BARE)).is_valid(message)
    assert valid == accepted(message, BARE)


@pytest.mark.parametrize("contract", [EVERYTHING, VERBS, BARE], ids=lambda one: one.name)
def test_every_schema_is_one(contract):
    jsonschema.Draft202012Validator.check_schema(json_schema(contract))
    assert markdown(contract)


@pytest.mark.parametrize("message", [1, [], "x", None, {}])
def test_what_is_no_message_is_not_valid(message):
    assert not VALIDATOR.is_valid(message)


@pytest.mark.parametrize("name", SHIPPED_NAMES)
def test_a_shipped_schema_is_one_and_takes_the_examples_that_are_delivered(name):
    contract = load_contract(name)
    schema = json_schema(contract)
    jsonschema.Draft202012Validator.check_schema(schema)
    good = [one for one in contract.examples if one.rejected is None]
    assert good
    for example in good:
        jsonschema.validate(json.loads(example.message), schema)


def test_descriptions_units_and_defaults_are_in_the_schema():
    ratio = json_schema(EVERYTHING)["properties"]["deep"]["properties"]["a.b"]
    assert ratio["description"] == "Share | of. Unit: %"
    assert json_schema(EVERYTHING)["properties"]["level"]["default"] == 1


# ---- Arrow, DynamoDB ----


@pytest.mark.parametrize("contract", [TELEMETRY, EVERYTHING], ids=lambda one: one.name)
def test_arrow_names_every_column_of_a_landing_object(contract):
    schema = contract.landing_schema()
    assert [column["name"] for column in catalogs.arrow(contract)] == schema.names
    assert len(catalogs.arrow_text(contract).splitlines()) == len(schema)
    assert "temperature: double not null  -- Air temperature [Cel]" in catalogs.arrow_text(
        TELEMETRY
    )


@pytest.mark.parametrize("contract", [TELEMETRY, EVERYTHING], ids=lambda one: one.name)
def test_the_item_that_is_described_is_the_one_that_is_written(contract):
    bodies = [example.message for example in contract.examples] or [
        json.dumps(
            {
                "id": "a",
                "at": TIMES[0],
                "times": {"s": 1, "ms": 1},
                "deep": {"er": {"count": 1}, "a.b": 0.5},
                "mode": "eco",
                "on": True,
                "unknown": 1,
            }
        ).encode()
    ]
    rows = applied(contract, bodies, NOON).rows
    items = items_of(rows, contract)
    described = catalogs.dynamodb(contract)
    kinds = {one["name"]: one["type"] for one in described["attributes"]} | {"pk": "S", "sk": "S"}
    for item in items.values():
        assert {name: next(iter(value)) for name, value in item.items()}.items() <= kinds.items()
        assert {one["name"] for one in described["attributes"] if one["always"]} <= item.keys()
    assert items


def test_positional_identity_is_in_the_sort_key():
    assert catalogs.dynamodb(EVERYTHING)["keys"]["sk"].endswith("#<record id>")
    assert not catalogs.dynamodb(TELEMETRY)["keys"]["sk"].endswith("#<record id>")
    assert catalogs.dynamodb(TELEMETRY)["ttl"] == "expires_at"


# ---- Markdown ----


def test_the_page_has_a_row_for_each_field_and_its_cells_hold():
    page = markdown(EVERYTHING)
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) == len(EVERYTHING.fields)
    for row in rows:
        assert len(re.findall(r"(?<!\\)\|", row)) == 7
    assert "else `1970-01-01T00:00:00+00:00`" in page
    assert "No two messages are the same" in page
    assert "an ordinary reading:" in markdown(TELEMETRY)
    assert "Readings are kept hot for 30 days." in markdown(TELEMETRY)


def test_every_verb_is_on_the_page():
    page = markdown(VERBS)
    for told in (
        "| `id`, or `device`, or `data.device` |",
        "| `value` of a reading |",
        "| `temp * 2` |",
        "| attribute `topic` |",
        "A message may name its version of this contract: `meta.version`.",
        "`kind` says which type a message is of:",
        "- `a`, `7`: id, at, v, n, temp.",
        "Messages of other types: reject.",
        "Each element of `data.list` becomes a row; a message without any is rejected.",
        "Fields that are not named here are a reason to reject.",
        "Rows are dropped where `temp > 100` (hot).",
        "Of all records 50.000% are kept.",
        "Readings are kept hot for ever where `twice > 0`, with id, at, mode.",
        "Messages may be wrapped: sns.",
        "hidden",
    ):
        assert told in page, told
