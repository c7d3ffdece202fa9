"""A contract drafted from a sample takes it, explains itself, and invents no limits."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.contracts import quantities
from infra.contracts.drafts import contract_name, draft
from infra.contracts.mistakes import mistakes
from infra.contracts.naming import names, snake
from infra.contracts.observed import PATHS_MAX
from infra.contracts.samples import SAMPLE_MAX_BYTES, Sample, SampleError, read_sample, sample_of
from infra.contracts.trial import applied
from tests.support import NOON, SOME
from transform.contract import Contract
from transform.contract_fields import FIELDS_MAX, NAME
from transform.contract_file import CONTRACT_NAME, load_contract
from transform.units import conversion

SENSORS = Path(__file__).parent.parent.parent / "shared" / "data" / "environment-sensors.ndjson"


def lines(*records: Any) -> Sample:
    """A sample of these records, text as it is."""
    bodies = (one if isinstance(one, str) else json.dumps(one) for one in records)
    return sample_of("\n".join(bodies).encode(), "fleet.ndjson")


def drafted(*records: Any) -> Contract:
    """The contract drafted of a sample that it must take whole."""
    made = draft(lines(*records), "fleet", NOON)
    assert mistakes(made.text.encode(), "fleet.toml") == []
    assert made.trial.delivered == len(records), made.trial.rejected
    assert not made.trial.conflicts
    return made.contract


def many(count: int = 30, **more: Any) -> list[dict[str, Any]]:
    """Readings of three devices; `more` are fields, or functions of the record's number."""
    return [
        {
            "device_id": f"d-{number % 3}",
            "ts": 1_795_000_000 + number,
            **{key: value(number) if callable(value) else value for key, value in more.items()},
        }
        for number in range(count)
    ]


# ---- Whole fleets ----


@pytest.mark.skipif(not SENSORS.exists(), reason="the shared data file is not here")
def test_recorded_readings_are_taken_unchanged_by_hand():
    made = draft(read_sample(str(SENSORS)), "sensors", NOON)
    assert (made.trial.records, made.trial.delivered) == (9_995, 9_995)
    assert made.warnings == ()
    contract = made.contract
    assert (contract.device, contract.event_time) == ("device_id", "ts")
    assert contract.record_id == ("device_id", "ts")
    by_hand = load_contract("environment-sensors")
    assert {field.path for field in contract.fields} == {field.path for field in by_hand.fields}
    for field in contract.fields:
        mine = next(one for one in by_hand.fields if one.path == field.path)
        assert (field.type, field.format, field.unit) == (mine.type, mine.format, mine.unit)


def test_nested_objects_are_flattened_under_short_names():
    contract = drafted(*many(env={"tempC": 20.5, "air": {"hum": 40}}, out={"tempC": 3}))
    paths = {field.name: field.path for field in contract.fields}
    assert paths["env_temp_c"] == ("env", "tempC")
    assert paths["out_temp_c"] == ("out", "tempC")
    assert paths["hum"] == ("env", "air", "hum")


def test_awkward_keys_have_a_path_or_are_left():
    odd = {"a.b": 1, "c d": 2, "": 3, 'q"': 4, "ü": 5, "7": 6, "pk": "x", "Temp": 1, "temp": 2}
    contract = drafted(*many(odd=odd))
    paths = {field.path[-1]: field.name for field in contract.fields}
    assert set(paths) == {"device_id", "ts", *odd} - {"", 'q"'}
    assert len(set(paths.values())) == len(paths)
    assert paths["pk"] == "own_pk"


def test_lists_mixed_types_and_huge_integers_are_left_to_be_rescued():
    made = draft(
        lines(
            *many(
                values=[1, 2],
                some=[1, {"v": 1}],
                mixed=lambda n: n if n % 2 else str(n),
                shape=lambda n: {"x": n} if n % 2 else n,
                huge=2**70,
                number=lambda n: n if n % 2 else n + 0.5,
            )
        ),
        "fleet",
        NOON,
    )
    assert made.trial.delivered == 30
    assert [field.name for field in made.contract.fields] == ["device_id", "ts", "number"]
    for told in (
        "- values: a list of values, in 30 records.",
        "- some: a list of values, in 30 records.",
        "- mixed: no one type holds all of it: 15 x text, 15 x whole number.",
        "- shape: no one type holds all of it: 15 x whole number, 15 x object.",
        "- huge: integers of more than 64 bits",
    ):
        assert told in made.text


def test_a_list_of_readings_becomes_rows():
    readings = [{"metric": "t", "value": 1}, {"metric": "h", "value": 2.5}]
    contract = drafted(*many(data={"list": readings, "site": "x"}, other=[{"a": 1}]))
    assert contract.explode is not None
    assert contract.explode.path == ("data", "list")
    inside = {field.name: field.path for field in contract.fields if field.of_reading}
    assert inside == {"metric": ("metric",), "value": ("value",)}
    assert contract.record_id == ("device_id", "ts", "metric")


def test_readings_that_nothing_tells_apart_have_their_place():
    contract = drafted(*many(list=[{"value": 1}, {"value": 1.5}, {"value": 1}]))
    assert contract.record_id == ("device_id", "ts", "reading")


def test_the_time_may_be_in_the_reading():
    records = [
        {"dev": f"d{n % 3}", "list": [{"ts": 1_795_000_000 + 2 * n + i, "v": i} for i in range(2)]}
        for n in range(30)
    ]
    contract = drafted(*records)
    assert (contract.event_time, contract.record_id) == ("ts", ("dev", "ts"))
    assert contract.field("ts").of_reading


def test_empty_lists_of_readings_are_dropped_if_the_sample_has_some():
    made = draft(lines(*many(list=lambda n: [{"v": 1}] if n else [])), "fleet", NOON)
    assert (made.trial.delivered, made.trial.dropped) == (29, 1)
    assert made.trial.dropped_by == {"explode": 1}


def test_lists_that_not_every_message_has_are_left():
    made = draft(lines(*many(list=lambda n: [{"v": 1}] if n else None)), "fleet", NOON)
    assert made.contract.explode is None
    assert "- list: a list of objects, in 29 records." in made.text
    assert made.trial.delivered == 30


def test_a_list_that_a_gateway_adds_is_none_of_readings():
    gateways = [{"gateway_id": "g", "rssi": -40, "timestamp": 2_463_457_000}]
    made = draft(lines(*many(v=1.5, rx_metadata=gateways)), "fleet", NOON)
    assert made.contract.explode is None
    assert made.contract.event_time == "ts"
    assert "- rx_metadata: a list of objects, in 30 records." in made.text


def test_a_counter_is_no_time_of_the_future():
    contract = drafted(*many(tick_time=2_463_457_000))
    assert (contract.event_time, contract.field("tick_time").type) == ("ts", "int64")


# ---- Packed messages ----


def test_arrays_and_base64_are_opened():
    records = many(4, v=1)
    packed = base64.b64encode(json.dumps(records[0]).encode()).decode()
    made = draft(lines(packed, records[1], records[2:]), "fleet", NOON)
    assert (made.trial.delivered, made.trial.rows) == (3, 4)
    assert {field.name for field in made.contract.fields} == {"device_id", "ts", "v"}


def test_wrapped_messages_are_unwrapped():
    def sns(message: Any) -> dict[str, Any]:
        topic = "arn:aws:sns:us-east-1:000000000000:fleet"
        more = {"Type": "Notification", "MessageId": "1", "TopicArn": topic}
        return {**more, "Message": json.dumps(message), "Timestamp": "2026-11-24T10:00:00.000Z"}

    def rule(message: Any) -> dict[str, Any]:
        more = {"version": "0", "id": "1", "detail-type": "reading", "source": "fleet"}
        where = {"account": "000000000000", "time": "2026-11-24T10:00:00Z", "region": "us-east-1"}
        return {**more, **where, "resources": [], "detail": message}

    assert drafted(*map(sns, many(v=1))).envelope.unwrap == ("sns",)
    assert drafted(*map(rule, many(v=1))).envelope.unwrap == ("eventbridge",)
    both = drafted(*(sns(rule(message)) for message in many(v=1)))
    assert both.envelope.unwrap == ("sns", "eventbridge")
    assert {field.name for field in both.fields} == {"device_id", "ts", "v"}


def test_only_what_is_always_there_is_required():
    contract = drafted(
        *many(always=1, sparse=lambda n: n or None, null=None),
        {"device_id": "d-9", "ts": 1_795_000_900, "always": 1, "sparse": 1},
    )
    required = {field.name: field.required for field in contract.fields}
    assert required == {"device_id": True, "ts": True, "always": True, "sparse": False}


def test_few_records_require_nothing_but_their_identity():
    contract = drafted({"dev": "a", "t": 1_795_000_000, "v": 1})
    assert [field.name for field in contract.fields if field.required] == ["dev", "t"]


def test_hundreds_of_fields_are_held_to_what_a_contract_takes():
    wide = {f"k{number}": number for number in range(FIELDS_MAX + 100)}
    made = draft(lines(*many(3, **wide)), "fleet", NOON)
    assert len(made.contract.fields) == FIELDS_MAX
    assert made.trial.delivered == 3


def test_keys_that_are_data_do_not_fill_the_memory():
    made = draft(
        lines(*({**one, f"k{n}": 1} for n, one in enumerate(many(PATHS_MAX + 50)))), "f", 0
    )
    assert len(made.contract.fields) <= FIELDS_MAX


# ---- Types, units, limits ----


@pytest.mark.parametrize(
    ("key", "value", "kind", "form"),
    [
        ("taken_at", "2026-11-24T10:00:00Z", "timestamp", "iso8601"),
        ("taken_at", "2026-11-24T10:00:00", "string", None),
        ("taken_at", 1_795_000_000, "timestamp", "epoch_seconds"),
        ("taken_at", 1_795_000_000.25, "timestamp", "epoch_seconds"),
        ("taken_at", 1_795_000_000_000, "timestamp", "epoch_millis"),
        ("taken_at", "1795000000", "timestamp", "epoch_seconds"),
        ("taken_at", 1_795_000_000_000_000, "int64", None),
        ("takenAt", 1_795_000_000, "timestamp", "epoch_seconds"),
        ("serial", 1_795_000_000, "int64", None),
        ("uptime_seconds", 5, "int64", None),
        ("ok", True, "bool", None),
        ("v", 1, "int64", None),
        ("v", 1.0, "float64", None),
        ("v", "1", "string", None),
    ],
)
def test_types(key, value, kind, form):
    [field] = [one for one in drafted(*many(**{key: value})).fields if one.path == (key,)]
    assert (field.type, field.format) == (kind, form)


@pytest.mark.parametrize("scale", [10**6, 10**9])
def test_a_finer_time_is_made_into_one(scale):
    records = [{"dev": "a", "ns": (1_795_000_000 + n) * scale + scale // 4} for n in range(30)]
    contract = drafted(*records)
    assert contract.event_time == "event_time"
    rows = applied(contract, [json.dumps(records[3]).encode()], NOON).rows
    assert rows.column("event_time").cast("int64").to_pylist() == [1_795_000_003_250_000]


def test_a_device_that_is_a_number_is_made_into_text():
    contract = drafted(*({"id": n % 3, "ts": 1_795_000_000 + n} for n in range(30)))
    assert (contract.device, contract.record_id) == ("device", ("device", "ts"))


def test_every_unit_that_is_guessed_can_be_converted():
    every = [one.unit for one in quantities._BY_WORD.values()] + [*quantities._BY_SUFFIX.values()]
    for unit in filter(None, every):
        assert conversion(unit, unit)


@pytest.mark.parametrize(
    ("key", "value", "unit", "low", "high"),
    [
        ("temperature", 20.5, "Cel", -273.15, None),
        ("temp_f", 70.5, "degF", -459.67, None),
        ("tempC", 20, "Cel", -274, None),
        ("humidity", 40.5, "%RH", 0, 100),
        ("humidity", 0.5, "", None, None),
        ("humidity", 140.5, "", None, None),
        ("battery_pct", 80, "%", 0, 100),
        ("battery_mv", 3_300, "mV", None, None),
        ("pressure_kpa", 101.3, "kPa", None, None),
        ("latency_ms", 12, "ms", None, None),
        ("lat", 52.5, "deg", -90, 90),
        ("co2", 400, "ppm", None, None),
        ("rssi", -70, "dBm", None, None),
        ("flow", 3.5, "", None, None),
        ("c", 3.5, "", None, None),
    ],
)
def test_units_and_limits_come_from_names_alone(key, value, unit, low, high):
    field = drafted(*many(**{key: value})).fields[-1]
    assert (field.unit, field.minimum, field.maximum) == (unit, low, high)


def test_few_values_are_only_a_comment():
    made = draft(lines(*many(mode=lambda n: ["eco", "boost"][n % 2])), "fleet", NOON)
    assert 'allowed = ["boost", "eco"]' in made.text
    assert made.contract.field("mode").allowed is None


def test_room_is_left_above_the_largest_record():
    contract = drafted(*many(), {"device_id": "d", "ts": 1_795_000_500, "text": "x" * 3_000})
    assert contract.max_body_bytes == 16_384
    assert drafted(*many()).max_body_bytes == 1_024


# ---- Identity ----


def test_the_device_is_the_field_that_is_named_so():
    contract = drafted(
        *many(device="pump", site="north", message_id=lambda n: f"m-{n}", id=lambda n: f"u{n}")
    )
    assert contract.device == "device_id"


def test_a_time_of_measuring_goes_before_one_of_receiving():
    records = [
        {"received_at": "2026-11-24T11:00:00Z", "dev": "a", "measured_at": one["ts"]}
        for one in many()
    ]
    assert drafted(*records).event_time == "measured_at"


def test_a_sequence_is_part_of_the_record_id():
    assert drafted(*many(seq=lambda n: n)).record_id == ("device_id", "ts", "seq")


@pytest.mark.parametrize("arrival", [NOON, 0])
def test_what_does_not_tell_records_apart_is_no_record_id(arrival):
    records = ({**one, "ts": 1_795_000_000, "v": n} for n, one in enumerate(many()))
    made = draft(lines(*records), "fleet", arrival)
    assert made.contract.record_id == ()
    assert any("stand for different records 27 times" in one for one in made.warnings)


def test_repeats_are_told_and_do_not_cost_the_record_id():
    made = draft(lines(*many(), *many()), "fleet", NOON)
    assert made.contract.record_id == ("device_id", "ts")
    assert made.warnings == ("30 records of the sample are repeats of others, byte for byte",)


def test_broken_lines_are_told_with_their_numbers():
    made = draft(lines(*many(), "{", "[1]"), "fleet", NOON)
    assert (made.trial.delivered, made.trial.quarantined) == (30, 2)
    assert any("malformed_json, such as line 31" in one for one in made.warnings)


# ---- Files ----


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "holds no record"),
        (b" \n\n", "holds no record"),
        (b"[]", "is an empty list"),
        (b"\x00\x01\xff\xfe" * 20, "neither JSON nor gzip"),
        (b"\x1f\x8b\x08nothing", "is gzip, but broken"),
        (gzip.compress(b'{"a": 1}', mtime=0)[:-4], "is gzip, but cut off"),
        (b"hello\nworld\n", r"holds no JSON object in 2 lines, such as line 1: \"hello\""),
        (b"[1, 2]", "holds no JSON object in 2 elements"),
        (b'{"device": 7.5, "ts": 1795000000}', "can be the device: .* device .float in 1."),
        (b'{"device": "a", "v": 1}', "no field can be the event time: it must be a time"),
    ],
)
def test_what_gives_no_contract_is_told(data, says):
    with pytest.raises(SampleError, match=says):
        draft(sample_of(data, "fleet.ndjson"), "fleet", NOON)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SampleError, match="cannot be read: No such file"):
        read_sample(str(tmp_path / "none"))


ONE = b'{"device": "a", "ts": 1795000000}'


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (ONE, 1),
        (b"\xef\xbb\xbf" + ONE + b"\r\n\r\n" + ONE + b"\r\n", 2),
        (b"[\n" + ONE + b",\n" + ONE + b"\n]\n", 2),
        (gzip.compress(ONE + b"\n" + ONE, mtime=0), 2),
        (gzip.compress(ONE + b"\n", mtime=0) + gzip.compress(ONE), 2),
        (json.dumps(json.loads(ONE), indent=2).encode(), 1),
    ],
    ids=["one", "windows", "array", "gzip", "two gzip members", "over several lines"],
)
def test_the_shapes_of_a_sample(data, count):
    sample = sample_of(data, "f")
    assert len(sample.bodies) == count
    assert draft(sample, "fleet", NOON).trial.delivered == count


def test_a_bomb_is_not_opened(monkeypatch):
    monkeypatch.setattr("infra.contracts.samples.SAMPLE_MAX_BYTES", 1_000)
    with pytest.raises(SampleError, match="opens to over"):
        sample_of(gzip.compress(b" " * 10_000, mtime=0), "f")
    assert SAMPLE_MAX_BYTES > 10**8


# ---- Names ----


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("readings.ndjson.gz", "readings"),
        ("a/b/My Fleet_2.json", "my-fleet-2"),
        ("2026.ndjson", "fleet-2026"),
        ("-", "fleet"),
        ("x" * 60, "x" * 40),
    ],
)
def test_a_contract_is_named_after_its_file(file, name):
    assert contract_name(file) == name
    assert CONTRACT_NAME.fullmatch(name)


@pytest.mark.parametrize(
    ("key", "name"),
    [("deviceId", "device_id"), ("DevEUI", "dev_eui"), ("air temp-C", "air_temp_c"), ("ÄÖ", "ao")],
)
def test_snake_case(key, name):
    assert snake(key) == name


@given(st.lists(st.lists(st.text(max_size=4), min_size=1, max_size=3).map(tuple), unique=True))
@SOME
def test_names_are_valid_and_never_twice(paths):
    found = names(paths)
    assert set(found) == set(paths)
    assert len(set(found.values())) == len(paths)
    assert all(NAME.fullmatch(name) for name in found.values())


# ---- Any fleet ----

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.none() | st.booleans() | NUMBERS | st.text(max_size=6)
KEYS = st.text('abT_.-é "\\\n1', max_size=4)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=5), min_size=1, max_size=25))
@SOME
def test_a_draft_takes_whatever_has_a_device_and_a_time(extras):
    base = many(len(extras))
    drafted(*(extra | one for extra, one in zip(extras, base, strict=True)))
