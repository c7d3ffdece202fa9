"""Paths through lists: the reading at a place is a field, and what is beside it is not lost."""

from __future__ import annotations

import json

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.contracts.json_schema import json_schema
from transform.contract import Contract
from transform.contract_file import ContractError, parse_contract
from transform.decode import Decoder
from transform.devices import Fleet
from transform.plan import Plan, Reading, Unread
from transform.records import Rejection

HEAD = """
name = "gateways"
unknown = "{unknown}"
[identity]
device = "id"
event_time = "at"
[[field]]
name = "id"
type = "string"
[[field]]
name = "at"
type = "timestamp"
format = "epoch_millis"
"""
FIELDS = """
[[field]]
name = "rssi"
path = ["rx", 0, "rssi"]
type = "int64"
required = true
[[field]]
name = "since"
path = ["rx", 0, "times", 1]
type = "timestamp"
format = "epoch_seconds"
[[field]]
name = "third"
path = ["rx", 2, "snr"]
type = "float64"
max = 30
[[field]]
name = "latitude"
path = ["position", 1]
type = "float64"
aliases = [["rx", 1, "lat"]]
"""
"""Of a required place, a place behind a gap, a list in a list, and an alias through another."""


def contract(unknown: str = "rescue", fields: str = FIELDS) -> Contract:
    return parse_contract((HEAD.format(unknown=unknown) + fields).encode(), "gateways.toml")


MODES = {mode: Plan(contract(mode)).message for mode in ("rescue", "drop", "reject")}
SCHEMAS = {mode: jsonschema.Draft202012Validator(json_schema(contract(mode))) for mode in MODES}


def message(**members: object) -> bytes:
    return json.dumps({"id": "d", "at": 0, **members}, separators=(",", ":")).encode()


def both(body: bytes, decoder: Decoder = MODES["rescue"]) -> tuple[list[object], str | None]:
    found = decoder.decode(body)
    assert not isinstance(found, Rejection), found
    return found


def test_a_value_in_a_list_is_read_by_its_place():
    body = message(rx=[{"rssi": -1, "times": [0, 2]}, {"lat": 48.5}, {"snr": 9.5}])
    assert both(body) == (["d", 0, -1, 2_000_000, 9.5, 48.5], '{"rx":[{"times":[0]}]}')


@pytest.mark.parametrize(
    ("rx", "rescued"),
    [
        ([{"rssi": 1}], None),
        ([{"rssi": 1}, None, None], None),
        ([{"rssi": 1, "x": 2}], '{"rx":[{"x":2}]}'),
        ([{"rssi": 1}, {"rssi": 2}], '{"rx":[null,{"rssi":2}]}'),
        ([{"rssi": 1}, {"lat": 1.5}, {"snr": 1}, 7], '{"rx":[null,null,null,7]}'),
    ],
)
def test_what_is_beside_it_is_rescued_in_its_place(rx, rescued):
    assert both(message(rx=rx))[1] == rescued


@pytest.mark.parametrize(
    ("rx", "reason", "detail"),
    [
        ([], "missing_field", "rx.0.rssi is absent or null"),
        ([None, {"rssi": 1}], "missing_field", "rx.0.rssi is absent or null"),
        ({"0": {"rssi": 1}}, "wrong_type", "rx is not a list"),
        ([[1]], "wrong_type", "rx.0 is not an object"),
        ([{"rssi": "1"}], "wrong_type", 'rx.0.rssi is not an integer: "1"'),
        ([{"rssi": 1}, 0, {"snr": 31}], "wrong_type", "rx.1 is not an object"),
        ([{"rssi": 1}, None, {"snr": 31}], "out_of_range", "rx.2.snr is 31"),
    ],
)
def test_what_is_wrong_there_is_told_with_its_place(rx, reason, detail):
    found = MODES["rescue"].decode(message(rx=rx))
    assert isinstance(found, Rejection)
    assert found.reason == reason
    assert found.detail.startswith(detail)


def test_unknown_places_are_dropped_or_rejected_as_unknown_keys_are():
    body = message(rx=[{"rssi": 1}, None, {"snr": 2}, {"rssi": 3}])
    assert both(body, MODES["drop"])[1] is None
    found = MODES["reject"].decode(body)
    assert isinstance(found, Rejection)
    assert (found.reason, found.detail) == ("unknown_field", "the contract has no rx.3")


@pytest.mark.parametrize("mode", MODES)
def test_the_fast_reader_takes_an_ordinary_list(mode):
    assert MODES[mode].fast(message(rx=[{"rssi": 1, "times": [None, 0]}, {"lat": 1}, {"snr": 1}]))
    assert MODES[mode].fast(message(rx=[{"rssi": 1}], position=[None, 2.5]))


def leaf() -> st.SearchStrategy[object]:
    return st.sampled_from([None, 0, 7, -1.5, 31, "1", "x", [], {}])


entry = st.dictionaries(
    st.sampled_from(["rssi", "snr", "lat", "times", "x"]),
    leaf() | st.lists(leaf(), max_size=3),
    max_size=3,
)
lists = st.lists(entry | entry | leaf(), max_size=4)
bodies = st.fixed_dictionaries(
    {"rx": st.lists(entry, max_size=3).map(lambda more: [{"rssi": 1}, *more]) | lists | leaf()},
    optional={"position": st.lists(leaf(), max_size=3) | leaf(), "x": leaf()},
).map(lambda members: message(**members))


@settings(max_examples=500, deadline=None)
@given(bodies, st.sampled_from(sorted(MODES)))
def test_what_the_fast_reader_accepts_the_slow_one_reads_alike(body, mode):
    fast, slow = MODES[mode].fast(body), MODES[mode].slow(body)
    if fast is not None:
        assert repr(slow) == repr((fast, None))


@settings(max_examples=300, deadline=None)
@given(bodies, st.sampled_from(sorted(MODES)))
def test_the_json_schema_says_of_lists_what_the_decoder_does(body, mode):
    accepted = SCHEMAS[mode].is_valid(json.loads(body))
    assert accepted == (not isinstance(MODES[mode].decode(body), Rejection))


def test_the_generated_fleet_has_them():
    fleet = Fleet(contract(), seed=1, start=0, stop=1, devices=1, malformed=0)
    (one,) = fleet.messages(1)
    assert both(one.body)[1] is None


def test_a_reading_that_is_a_list_is_read_by_its_places():
    """As Prometheus has them: `[[seconds, "value"], ...]`."""
    readings = """
[explode]
path = "values"
[[field]]
name = "moment"
path = ["value", 0]
of = "reading"
type = "timestamp"
format = "epoch_seconds"
[[field]]
name = "text"
path = ["value", 1]
of = "reading"
type = "string"
"""
    plan = Plan(contract(fields=readings))
    found = plan.read(message(values=[[1.5, "7"], [2], 3]), None)
    assert not isinstance(found, Rejection)
    first, second, third = found
    assert isinstance(first, Reading)
    assert first.row == ["d", 0, 1_500_000, "7"]
    assert isinstance(second, Reading)
    assert second.row == ["d", 0, 2_000_000, None]
    assert isinstance(third, Unread)
    assert third.rejection.detail == "value is not a list"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ('["rx"]', "'rx' and 'rssi' ('rx.0.rssi') lie on one path"),
        ('["rx", "first"]', "'rx.first' and 'rssi' ('rx.0.rssi') lie on one path"),
        ('["rx", 0]', "'rx.0' and 'rssi' ('rx.0.rssi') lie on one path"),
        ('["rx", 100]', "the place 100; allowed: 0 to 99"),
        ('"rx[1].lat"', """'rx[1].lat' has a place in a list; allowed: `["rx", 1, "lat"]`"""),
    ],
)
def test_a_list_is_not_an_object_nor_a_value(path, says):
    more = f'[[field]]\nname = "more"\ntype = "string"\npath = {path}\n'
    with pytest.raises(ContractError) as caught:
        contract(fields=FIELDS + more)
    assert says in str(caught.value)
