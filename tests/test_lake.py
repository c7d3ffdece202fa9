"""What SQL sees of a state: each view, each contract's own, and values as JSON can hold them."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from infra.lake import Lake, QueryError, plain
from infra.local.emulator import Emulator, client
from infra.topology import LEDGER
from sinks import landing, raw
from sinks.bucket import Bucket
from sinks.deadline import Deadline
from sinks.ledger import Attempt
from sinks.table import Table
from tests.support import NOON, SECOND, create_table, delivery, reading
from transform.contract import Contract
from transform.contract_file import load_contract, parse_contract
from transform.pipeline import Transform

TELEMETRY = load_contract("telemetry")
SENSORS = load_contract("environment-sensors")


def contract(name: str, version: int = 1, fields: str = "", **types: str) -> Contract:
    """A contract of two identity fields and others by type."""
    text = f"""
name = "{name}"
version = {version}

[identity]
device = "device"
event_time = "at"
record_id = ["device", "at"]

[[field]]
name = "device"
type = "string"

[[field]]
name = "at"
type = "timestamp"
format = "epoch_seconds"
{fields}
"""
    for field, kind in types.items():
        form = '\nformat = "iso8601"' if kind == "timestamp" else ""
        text += f'\n[[field]]\nname = "{field}"\ntype = "{kind}"{form}\n'
    return parse_contract(text.encode(), name)


def sensors(second: int, **more: Any) -> bytes:
    message = {
        "device_id": "5e:44",
        "ts": NOON // SECOND - 60 + second,
        "data": {"co": 0.25, "light": True},
    }
    return json.dumps(message | more).encode()


class Pipeline:
    """A bucket and a ledger on the emulator, and what Transform and Settle leave there."""

    def __init__(self, s3: Any, dynamodb: Any, name: str) -> None:
        s3.create_bucket(Bucket=name)
        create_table(dynamodb, f"{LEDGER}-{name}")
        self.bucket = Bucket(s3, name)
        self.ledger = Table(dynamodb, f"{LEDGER}-{name}")
        self.read: Counter[str] = Counter()  # objects by the first part of their key

    def lake(self, *contracts: Contract) -> Lake:
        return Lake(self.bucket, self.ledger, contracts)

    def deliver(
        self, rules: Contract, bodies: Sequence[bytes], *, epoch: int = 0, first: int = 100
    ) -> None:
        """One attempt at a Delivery of these bodies, at the positions from `first` on."""
        until = Deadline(time.time() + 60, time.time)
        given = delivery(bodies, stream=f"millrace-{rules.name}")
        sequences = [str(first + number) for number in range(len(bodies))]
        given = dataclasses.replace(given, sequences=sequences)
        key = raw.archive(self.bucket, given, until)
        batch = Transform(rules, epoch).apply(given.table(), key)
        landing.write(self.bucket, rules, batch, until)

    def settle(self, execution: str, **values: Any) -> None:
        """One item of the ledger, as the workflow writes it."""
        item: dict[str, Any] = {"pk": {"S": "2026-11-24T12:00#0"}, "sk": {"S": execution}}
        for field in dataclasses.fields(Attempt):
            if field.name != "execution":
                empty = "[]" if field.name == "retry" else 0 if field.type == "int" else ""
                value = values.get(field.name, empty)
                item[field.name] = {"N": str(value)} if field.type == "int" else {"S": str(value)}
        self.ledger.client.put_item(TableName=self.ledger.name, Item=item)

    def count(self, params: dict[str, Any], **_: Any) -> None:
        self.read[params["Key"].partition("/")[0]] += 1


@pytest.fixture(scope="module")
def clients(tmp_path_factory) -> Iterator[tuple[Any, Any]]:
    emulator = Emulator(tmp_path_factory.mktemp("lake"))
    emulator.start()
    yield client("s3", emulator.url), client("dynamodb", emulator.url)
    emulator.stop()


@pytest.fixture
def pipeline(clients, tmp_path) -> Iterator[Pipeline]:
    s3, dynamodb = clients
    made = Pipeline(s3, dynamodb, re.sub(r"[^a-z0-9]+", "-", tmp_path.name.lower())[:60])
    s3.meta.events.register("provide-client-params.s3.GetObject", made.count)
    yield made
    s3.meta.events.unregister("provide-client-params.s3.GetObject", made.count)


def rows(lake: Lake, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in plain(lake.query(sql))]


# ---- The views ----


def test_records_are_one_row_per_identity(pipeline):
    first = [reading(seq=1), reading(seq=2), reading(seq=1)]
    pipeline.deliver(TELEMETRY, first)
    pipeline.deliver(TELEMETRY, [*first[1:], reading(seq=3)], first=101)  # edges have moved
    lake = pipeline.lake(TELEMETRY)
    assert rows(lake, "SELECT sequence FROM records ORDER BY 1") == [(1,), (2,), (3,)]
    [row] = plain(lake.query("SELECT * FROM records WHERE sequence = 2"))
    assert row["device_id"] == "sensor-1"
    assert row["event_time"] == "2026-11-24T12:00:00Z"
    assert row["temperature"] == 21.5
    assert row["battery"] is None
    assert row["status"] == "ok"
    assert row["_rescued"] is None
    assert row["_contract"] == "telemetry"
    assert row["_record_id"] == "sensor-1/2026-11-24T12:00:00.000000Z/2"
    assert (row["_stream"], row["_sequence"]) == ("millrace-telemetry", "101")
    assert len(row["_digest"]) == 32
    assert int(row["_digest"], 16)


def test_quarantine_has_the_bytes_and_the_reason(pipeline):
    pipeline.deliver(TELEMETRY, [b"{", b'{"a":1}', reading(), b"\xff"])
    lake = pipeline.lake(TELEMETRY)
    found = plain(lake.query("SELECT * FROM quarantine ORDER BY _index"))
    assert [(row["_reason"], row["_body"]) for row in found] == [
        ("malformed_json", "{"),
        ("missing_field", '{"a":1}'),
        ("not_utf8", "ff"),
    ]
    assert found[1]["_field"] == "device_id"
    assert len(found[0]["_digest"]) == 32
    assert rows(lake, "SELECT count(*) FROM records") == [(1,)]


def test_device_clocks_say_how_far_each_device_is_off(pipeline):
    late = [reading("slow", NOON - 7_200 * SECOND, seq) for seq in range(3)]
    ahead = [reading("fast", NOON + 30 * SECOND, seq) for seq in range(20)]
    pipeline.deliver(TELEMETRY, [*ahead, reading("fast", NOON - 70 * SECOND, 99), *late, late[0]])
    pipeline.deliver(SENSORS, [sensors(0), sensors(30)])
    lake = pipeline.lake(TELEMETRY, SENSORS)
    assert rows(lake, "SELECT * EXCLUDE last_seen FROM device_clocks ORDER BY device") == [
        ("environment-sensors", "5e:44", 2, 45, 58.5, 30, 60, 0),
        ("telemetry", "fast", 21, -30, -30, -30, 70, 0),
        ("telemetry", "slow", 3, 7_200, 7_200, 7_200, 7_200, 1),
    ]
    assert rows(lake, "SELECT DISTINCT last_seen FROM device_clocks") == [("2026-11-24T12:00:00Z",)]


def test_what_was_reprocessed_counts_by_its_greatest_epoch(pipeline):
    pipeline.deliver(TELEMETRY, [b"{", reading(seq=1)])
    stricter = parse_contract(TELEMETRY.source.replace(b"max = 125", b"max = 20"), "x")
    pipeline.deliver(stricter, [b"{", reading(seq=1)], epoch=1)
    lake = pipeline.lake(stricter)
    assert rows(lake, "SELECT count(*) FROM records") == [(0,)]
    assert rows(lake, "SELECT _reason, _epoch FROM quarantine ORDER BY 1") == [
        ("malformed_json", 1),
        ("out_of_range", 1),
    ]


def test_raw_is_every_source_record_as_it_came(pipeline):
    pipeline.deliver(TELEMETRY, [b"{", reading(), b"\xff"])
    found = plain(pipeline.lake(TELEMETRY).query("SELECT * FROM raw ORDER BY _sequence"))
    assert [row["_body"] for row in found] == ["{", reading().decode(), "ff"]
    assert found[0]["_partition_key"] == "sensor"
    assert found[0]["_arrival"] == "2026-11-24T12:00:00Z"
    assert found[0]["_attributes"] is None


def test_ledger_is_one_row_per_attempt(pipeline):
    pipeline.settle("arn:1", received=3, delivered=2, outcome="retry", retry="[[2, 3]]")
    pipeline.settle("arn:2", received=1, delivered=1, outcome="done")
    lake = pipeline.lake(TELEMETRY)
    sql = "SELECT execution, received, delivered, outcome, retry FROM ledger ORDER BY 1"
    assert rows(lake, sql) == [("arn:1", 3, 2, "retry", [[2, 3]]), ("arn:2", 1, 1, "done", [])]


def test_every_view_of_an_empty_state_is_empty(pipeline):
    lake = pipeline.lake(TELEMETRY)
    for view in ("records", "quarantine", "ledger", "raw", "telemetry"):
        found = lake.query(f"FROM {view}")
        assert found.num_rows == 0
        assert found.num_columns > 5


# ---- Several contracts ----


def test_each_contract_has_a_view_of_its_own(pipeline):
    pipeline.deliver(TELEMETRY, [reading(seq=1), b"{"])
    pipeline.deliver(SENSORS, [sensors(1), sensors(2), b"}"])
    lake = pipeline.lake(TELEMETRY, SENSORS)
    assert rows(lake, "SELECT sequence FROM telemetry") == [(1,)]
    assert rows(lake, "SELECT co, light FROM environment_sensors") == [(0.25, True)] * 2
    assert set(lake.query("SELECT * FROM telemetry").column_names) == {
        *TELEMETRY.landing_schema().names
    }
    by_contract = "SELECT _contract, count(*), count(sequence), count(co) FROM records GROUP BY 1"
    assert sorted(rows(lake, by_contract)) == [
        ("environment-sensors", 2, 0, 2),
        ("telemetry", 1, 1, 0),
    ]
    assert sorted(rows(lake, "SELECT _contract, _body FROM quarantine")) == [
        ("environment-sensors", "}"),
        ("telemetry", "{"),
    ]


@pytest.mark.parametrize("name", ["records", "quarantine", "ledger", "raw", "select", "main"])
def test_a_contract_may_be_called_anything(pipeline, name):
    odd = contract(name)
    pipeline.deliver(odd, [b'{"device":"d","at":1}', b"{"])
    lake = pipeline.lake(odd)
    assert rows(lake, "SELECT device FROM records") == [("d",)]
    assert rows(lake, "SELECT _body FROM quarantine") == [("{",)]
    if name in ("select", "main"):
        assert lake.query(f'FROM "{name}"').column("device").to_pylist() == ["d"]


@pytest.mark.parametrize("kind", ["int64", "string", "bool", "timestamp"])
def test_contracts_may_disagree_about_a_field(pipeline, kind):
    one, other = contract("one", v="float64"), contract("other", v=kind)
    text = {"int64": "7", "string": '"x"', "bool": "true", "timestamp": '"2026-01-01T00:00Z"'}
    pipeline.deliver(one, [b'{"device":"d","at":1,"v":1.5}'])
    pipeline.deliver(other, [f'{{"device":"e","at":1,"v":{text[kind]}}}'.encode()])
    lake = pipeline.lake(one, other)
    assert rows(lake, "SELECT device FROM records ORDER BY 1") == [("d",), ("e",)]
    assert len(rows(lake, "SELECT v FROM records WHERE v IS NOT NULL")) == 2


@pytest.mark.parametrize("kind", ["int64", "string", "bool", "timestamp"])
def test_a_field_may_change_its_type_with_a_version(pipeline, kind):
    old, new = contract("one", v="float64"), contract("one", 2, v=kind)
    text = {"int64": "7", "string": '"x"', "bool": "true", "timestamp": '"2026-01-01T00:00Z"'}
    pipeline.deliver(old, [b'{"device":"d","at":1,"v":1.5}'])
    pipeline.deliver(new, [f'{{"device":"e","at":1,"v":{text[kind]}}}'.encode()], first=200)
    found = dict(rows(pipeline.lake(new), "SELECT device, v FROM records"))
    assert found.keys() == {"d", "e"}
    assert float(found["d"]) == 1.5
    assert found["e"] is not None


def test_fields_that_came_and_went_with_versions_are_kept(pipeline):
    old, new = contract("one", gone="int64"), contract("one", 2, fresh="string")
    pipeline.deliver(old, [b'{"device":"d","at":1,"gone":1}'])
    pipeline.deliver(new, [b'{"device":"e","at":1,"fresh":"x"}'], first=200)
    sql = "SELECT device, gone, fresh FROM records ORDER BY 1"
    assert rows(pipeline.lake(new), sql) == [("d", 1, None), ("e", None, "x")]


# ---- No more is read than the SQL names ----


@pytest.mark.parametrize(
    ("sql", "read"),
    [
        ("SELECT 1", {}),
        ("SELECT count(*) FROM ledger", {}),
        ("SELECT count(*) FROM raw", {"raw": 2}),
        ("SELECT count(*) FROM RECORDS", {"landing": 2, "quarantine": 1, "lake": 2}),
        ('SELECT count(*) FROM "quarantine"', {"landing": 2, "quarantine": 1, "lake": 2}),
        ("SELECT count(*) FROM telemetry", {"landing": 1, "quarantine": 1, "lake": 1}),
        ("SELECT count(*) FROM Environment_Sensors", {"landing": 1, "lake": 1}),
    ],
)
def test_only_named_views_are_read(pipeline, sql, read):
    pipeline.deliver(TELEMETRY, [reading(), b"{"])
    pipeline.deliver(SENSORS, [sensors(1)])
    pipeline.lake(TELEMETRY, SENSORS).query(sql)
    assert pipeline.read == read


def test_the_catalog_names_every_view(pipeline):
    names = {name for (name,) in rows(pipeline.lake(TELEMETRY, SENSORS), "SHOW TABLES")}
    assert {
        *("records", "quarantine", "ledger", "raw", "telemetry", "environment_sensors"),
        *("dropped", "device_clocks"),
    } <= names


# ---- What cannot be answered ----


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM nowhere", "nowhere"),
        ("SELECT nothing FROM records", "nothing"),
        ("SELECT CAST('x' AS INTEGER)", "Could not convert"),  # found when it is run
        ("SELECT error('mine') FROM range(3)", "mine"),
        ("", "no SQL"),
        (" \n\t", "no SQL"),
    ],
)
def test_sql_that_cannot_be_answered(pipeline, sql, says):
    with pytest.raises(QueryError, match=says):
        pipeline.lake(TELEMETRY).query(sql)


def test_statements_that_are_no_question(pipeline, tmp_path):
    target = tmp_path / "out.csv"
    lake = pipeline.lake(TELEMETRY)
    lake.query(f"COPY (SELECT 1 AS a) TO '{target}'")
    assert target.read_text() == "a\n1\n"
    assert plain(lake.query("SET threads = 1")) == []


# ---- Values ----


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("1", 1),
        ("true", True),
        ("NULL", None),
        ("0.1::DOUBLE", 0.1),
        ("'nan'::DOUBLE", None),
        ("'-inf'::DOUBLE", None),
        ("1.50::DECIMAL(10, 2)", 1.5),
        ("2::DECIMAL(10, 2)", 2),
        ("sum(x) FROM (VALUES (9223372036854775807), (1)) AS t(x)", 2**63),
        ("'\N{SNOWMAN}'", "\N{SNOWMAN}"),
        ("'text'::BLOB", "text"),
        ("'\\xFF\\x00'::BLOB", "ff00"),
        ("TIMESTAMPTZ '2026-11-24 12:00:00.5+01:00'", "2026-11-24T11:00:00.500000Z"),
        ("TIMESTAMP '2026-11-24 12:00:00'", "2026-11-24T12:00:00"),
        ("TIMESTAMP_NS '2026-11-24 12:00:00.123456789'", "2026-11-24 12:00:00.123456789"),
        ("TIMESTAMP '20000-01-01'", "20000-01-01 00:00:00.000000"),
        ("DATE '2026-11-24'", "2026-11-24"),
        ("TIME '12:00:00'", "12:00:00"),
        ("[1, NULL]", [1, None]),
        ("['a'::BLOB]", ["a"]),
        ("{'a': 1, 'b': ['x'::BLOB, '\\xFF'::BLOB]}", {"a": 1, "b": ["x", "ff"]}),
        ("MAP {'a': 1}", [["a", 1]]),
    ],
)
def test_values_as_json_holds_them(pipeline, sql, value):
    [(found,)] = rows(pipeline.lake(), f"SELECT {sql}")
    assert found == value
    assert type(found) is type(value)
    json.dumps(found, allow_nan=False)


def test_columns_of_one_name_are_all_there(pipeline):
    sql = "SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a"
    assert plain(pipeline.lake().query(sql)) == [{"a": 1, "a_2": 2, "a_1": 3, "a_3": 4}]


def test_plain_rows_of_an_arrow_table():
    moment = datetime(2026, 11, 24, 12, tzinfo=UTC)
    table = pa.table(
        {
            "bytes": pa.array([b"text", b"\xff", None], pa.binary()),
            "time": pa.array([moment, None, moment], pa.timestamp("us", tz="UTC")),
            "day": pa.array([date(2026, 11, 24), None, None]),
            "sum": pa.array([Decimal(2**70), Decimal("1.5"), None], pa.decimal128(38, 1)),
        }
    )
    assert plain(table) == [
        {"bytes": "text", "time": "2026-11-24T12:00:00Z", "day": "2026-11-24", "sum": 2**70},
        {"bytes": "ff", "time": None, "day": None, "sum": 1.5},
        {"bytes": None, "time": "2026-11-24T12:00:00Z", "day": None, "sum": None},
    ]
    assert plain(pa.table({})) == []
    assert plain(table.slice(0, 0)) == []
