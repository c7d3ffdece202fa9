"""The puts cut from Arrow are those that boto3's own serializer would make of the rows' values."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sinks import hot
from sinks.puts import NUMBER_MAX, NUMBER_MIN, escaped
from tests.support import SOME
from transform.contract import Contract
from transform.contract_file import parse_contract
from transform.field_types import ARROW_TYPES, INT64_MAX, INT64_MIN, FieldType
from transform.records import DIGEST, DIGEST_BYTES, UTC_MICROS

MICROS = 1_000_000
START = datetime(1970, 1, 1, tzinfo=UTC)
MOMENTS = st.integers(-62_135_596_800 * MICROS, 253_402_300_799 * MICROS)
EDGES = [1e-4, 9.999e-5, 1e9, 1e9 + 1, NUMBER_MIN, NUMBER_MAX, 1e126, 9e-131, 5e-324, -0.0, 1e22]
FLOATS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-1e10, 1e10),
    st.integers(-(10**17), 10**17).map(float),
    st.decimals(-1_000, 1_000, places=3).map(float),
    st.sampled_from(EDGES),
)
TEXTS = st.one_of(
    st.text(max_size=20),
    st.text('\x00\x01\x1f "\\/\x7f\x80\u2028é😀\ufffd', max_size=8),
    st.sampled_from(["", "ok", '{"a":[1]}', "\\u0041"]),
)
VALUES: dict[FieldType, st.SearchStrategy[Any]] = {
    "string": TEXTS,
    "int64": st.integers(INT64_MIN, INT64_MAX),
    "float64": FLOATS,
    "bool": st.booleans(),
    "timestamp": MOMENTS,
}
NAMES = ["level", "count", "flag", "note", "seen", "more"]


@st.composite
def contracts(draw: st.DrawFn) -> Contract:
    types = draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=len(NAMES)))
    fields = dict(zip(NAMES, types, strict=False))
    hot_keys = ""
    if draw(st.booleans()):
        hot_keys += f"ttl_days = {draw(st.integers(1, 36_500))}\n"
    if fields and draw(st.booleans()):
        kept = draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, unique=True))
        hot_keys += f"fields = {json.dumps(kept)}\n"
    record_id = 'record_id = ["device", "at"]' if draw(st.booleans()) else ""
    head = f'name = "any"\n[identity]\ndevice = "device"\nevent_time = "at"\n{record_id}\n'
    every = {"device": "string", "at": "timestamp", **fields}
    body = "".join(f'[[field]]\nname = "{name}"\ntype = "{kind}"\n' for name, kind in every.items())
    body = body.replace('"timestamp"\n', '"timestamp"\nformat = "epoch_millis"\n')
    return parse_contract(f"{head}[hot]\n{hot_keys}{body}".encode(), "any.toml")


def rows_of(contract: Contract, draw: Callable[..., Any]) -> list[dict[str, Any]]:
    """Rows as plain values, times in microseconds: what a landing object could hold."""
    some = {f.name: VALUES[f.type] for f in contract.fields}
    for f in contract.fields:
        if f.name not in contract.identity:
            some[f.name] |= st.none()
    some |= {
        "_rescued": st.none() | TEXTS,
        "_record_id": TEXTS,
        "_digest": st.sampled_from([bytes([n]) * DIGEST_BYTES for n in (0, 10, 255)]),
    }
    return draw(st.lists(st.fixed_dictionaries(some), max_size=12))  # type: ignore[no-any-return]


def table_of(contract: Contract, rows: list[dict[str, Any]]) -> pa.Table:
    types = {f.name: ARROW_TYPES[f.type] for f in contract.fields}
    types |= {"_rescued": pa.string(), "_record_id": pa.string(), "_digest": DIGEST}
    columns = {}
    for name, kind in types.items():
        values = [row[name] for row in rows]
        if kind == UTC_MICROS:
            columns[name] = pa.array(values, pa.int64()).cast(kind)
        else:
            columns[name] = pa.array(values, kind)
    return pa.table(columns)


def iso(micros: int) -> str:
    moment = START + timedelta(microseconds=micros)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def plain(value: Any, kind: FieldType) -> Any:
    """A value as boto3's serializer takes it."""
    if kind == "timestamp":
        return iso(value)
    if kind == "float64":
        held = value == 0 or NUMBER_MIN <= abs(value) <= NUMBER_MAX
        return Decimal(repr(value)) if held else repr(value)
    return value


def expected(contract: Contract, row: dict[str, Any]) -> dict[str, Any]:
    """The item of a row, attribute by attribute."""
    time = iso(row[contract.event_time])
    tail = "" if contract.record_id else f"#{row['_record_id']}"
    item = {
        "pk": f"{row[contract.device]}#{time[:10]}",
        "sk": f"{time}#{row['_digest'].hex()}{tail}",
    }
    if contract.hot_ttl_seconds is not None:
        item["expires_at"] = row[contract.event_time] // MICROS + contract.hot_ttl_seconds
    for spec in contract.hot_columns:
        if row[spec.name] is not None:
            item[spec.name] = plain(row[spec.name], spec.type)
    if contract.hot_fields is None and row["_rescued"] is not None:
        item["_rescued"] = row["_rescued"]
    return {name: TypeSerializer().serialize(value) for name, value in item.items()}


def read(items: dict[hot.Key, Any]) -> dict[hot.Key, Any]:
    return {
        key: {name: TypeDeserializer().deserialize(value) for name, value in item.items()}
        for key, item in items.items()
    }


def made(rows: pa.Table, contract: Contract) -> dict[hot.Key, Any]:
    """The items, each by the key that it holds; repeats would show."""
    wanted = hot.Wanted.of(rows, contract)
    items = [json.loads(put)["PutRequest"]["Item"] for put in wanted.puts()]
    keys = [(item["pk"]["S"], item["sk"]["S"]) for item in items]
    assert len(set(keys)) == len(keys)
    assert set(keys) == set(hot.keys_of(rows, contract))
    return dict(zip(keys, items, strict=True))


@settings(SOME, max_examples=400)
@given(st.data())
def test_any_rows_of_any_contract(data: st.DataObject):
    contract = data.draw(contracts())
    rows = rows_of(contract, data.draw)
    whole = table_of(contract, rows)
    first: dict[hot.Key, Any] = {}
    for row in rows:
        item = expected(contract, row)
        first.setdefault((item["pk"]["S"], item["sk"]["S"]), item)
    found = made(whole, contract)
    assert {key: set(item) for key, item in found.items()} == {
        key: set(item) for key, item in first.items()
    }
    assert read(found) == read(first)
    # Pieces of a column are the same as the whole, wherever its memory begins.
    at = data.draw(st.integers(0, len(rows)))
    assert made(pa.concat_tables([whole.slice(0, at), whole.slice(at)]), contract) == found
    assert made(whole.slice(at), contract) == made(table_of(contract, rows[at:]), contract)


@settings(SOME, max_examples=300)
@given(st.lists(FLOATS, min_size=1))
@example([1e-4, 123456.5])
@example([0.0, 1.0])
def test_floats_are_written_as_python_writes_them(values: list[float]):
    contract = parse_contract(
        b'name="f"\n[identity]\ndevice="d"\nevent_time="t"\n[[field]]\nname="d"\ntype="string"\n'
        b'[[field]]\nname="t"\ntype="timestamp"\nformat="epoch_millis"\n'
        b'[[field]]\nname="x"\ntype="float64"\n',
        "f.toml",
    )
    rows = [
        {"d": "d", "t": n, "x": x, "_rescued": None, "_record_id": "", "_digest": b"0" * 16}
        for n, x in enumerate(values)
    ]
    puts = hot.Wanted.of(table_of(contract, rows), contract).puts()
    found = [json.loads(put)["PutRequest"]["Item"]["x"] for put in puts]
    assert [next(iter(x.values())) for x in found] == [repr(x) for x in values]


@SOME
@given(st.lists(st.none() | TEXTS), st.integers(0, 3))
def test_strings_are_what_json_reads_back(values: list[str | None], start: int):
    column = escaped(pa.array(values, pa.string()).slice(start))
    read_back = [None if text is None else json.loads(f'"{text}"') for text in column.to_pylist()]
    assert read_back == values[start:]


@pytest.mark.parametrize("size", [0, 1, hot.ROWS_MAX, hot.ROWS_MAX + 1])
def test_more_rows_than_are_made_at_once(size: int):
    contract = parse_contract(
        b'name="f"\n[identity]\ndevice="d"\nevent_time="t"\n[[field]]\nname="d"\ntype="string"\n'
        b'[[field]]\nname="t"\ntype="timestamp"\nformat="epoch_millis"\n',
        "f.toml",
    )
    rows = [
        {"d": "d", "t": n, "_rescued": None, "_record_id": "", "_digest": b"0" * 16}
        for n in range(size)
    ]
    puts = list(hot.Wanted.of(table_of(contract, rows), contract).puts())
    times = [json.loads(put)["PutRequest"]["Item"]["t"]["S"] for put in puts]
    assert times == [iso(n) for n in range(size)]
