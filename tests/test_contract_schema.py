"""A contract in the words of other tools says what the pipeline does."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.contracts import catalogs
from infra.contracts.json_schema import json_schema
from infra.contracts.markdown import markdown
from infra.contracts.trial import applied
from sinks import hot
from tests.support import NOON, SOME
from transform.contract_file import SHIPPED, load_contract, parse_contract
from transform.plan import Plan
from transform.records import Rejection

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
VALIDATOR = jsonschema.Draft202012Validator(json_schema(EVERYTHING))
DECODER = Plan(EVERYTHING).message

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
    accepted = not isinstance(DECODER.decode(json.dumps(message).encode()), Rejection)
    assert VALIDATOR.is_valid(message) == accepted


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


# ---- Arrow, Glue, DynamoDB ----


@pytest.mark.parametrize("contract", [TELEMETRY, EVERYTHING], ids=lambda one: one.name)
def test_arrow_and_glue_name_every_column_of_a_landing_object(contract):
    schema = contract.landing_schema()
    assert [column["name"] for column in catalogs.arrow(contract)] == schema.names
    assert len(catalogs.arrow_text(contract).splitlines()) == len(schema)
    columns = catalogs.glue(contract)["StorageDescriptor"]["Columns"]
    assert [column["Name"] for column in columns] == schema.names
    types = {"bigint", "int", "double", "boolean", "string", "timestamp", "binary"}
    assert {column["Type"] for column in columns} <= types
    assert "temperature: double not null  -- Air temperature [Cel]" in catalogs.arrow_text(
        TELEMETRY
    )


def test_the_ddl_escapes_what_people_write():
    ddl = catalogs.ddl(EVERYTHING)
    assert "COMMENT 'It''s | all'" in ddl
    assert "`ratio` double COMMENT 'Share | of [%]'" in ddl
    assert ddl.count("'") % 2 == 0
    assert "s3://BUCKET/landing/everything/${_day}/${_hour}/" in ddl


def test_no_column_can_be_a_partition_key():
    assert not set(catalogs.PARTITIONS) & set(EVERYTHING.landing_schema().names)
    assert all(name.startswith("_") for name in catalogs.PARTITIONS)


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
    _, items = hot.items_of(rows, contract)
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
