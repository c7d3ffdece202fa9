"""Lookup files: what is read of them, what is refused, and what fields find there."""

import io
import json
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.verbs import applied, contract, field, like, one_file, refused, values
from transform import lookups
from transform.contract_file import ContractError, parse_contract
from transform.pipeline import Transform

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
V = field("v", "string", lookup="one")


def looked_up(data, kind="csv", fields=V, on="d", device=""):
    text = f'[[lookup]]\nname = "one"\nfile = "one.{kind}"\non = "{on}"\nkey = "id"\n'
    return contract(text + fields, files=one_file(data), device=device)


def parquet(**columns):
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def one_value(kind, data, file):
    """What a field of this type finds for device `a`."""
    rules = looked_up(data, file, field("v", kind, lookup="one"))
    batch = applied(rules, like(d="a"))
    return values(batch, "v")[0]


@pytest.mark.parametrize(
    ("kind", "text", "wanted"),
    [
        ("string", "007", "007"),
        ("string", '" a, b "', " a, b "),
        ("string", '""', None),
        ("int64", "7", 7),
        ("int64", "", None),
        ("float64", "1.5e3", 1500.0),
        ("bool", "true", True),
        ("bool", "0", False),
        ("timestamp", "2026-01-01T00:00:00Z", MIDNIGHT),
        ("timestamp", "2026-01-01 01:00:00+01:00", MIDNIGHT),
    ],
)
def test_text_is_read_as_the_field_it_is_for(kind, text, wanted):
    assert one_value(kind, f"id,v\na,{text}\n".encode(), "csv") == wanted


@pytest.mark.parametrize(
    ("kind", "given", "wanted"),
    [
        ("string", "x", "x"),
        ("string", 5, "5"),
        ("int64", 7, 7),
        ("int64", 7.0, 7),
        ("float64", 3, 3.0),
        ("bool", True, True),
        ("bool", None, None),
        ("timestamp", "2026-01-01T00:00:00Z", MIDNIGHT),
    ],
)
def test_json_is_read_as_the_field_it_is_for(kind, given, wanted):
    for file in ("ndjson", "jsonl"):
        data = json.dumps({"id": "a", "v": given}).encode() + b"\n\n" + b'{"id":"b"}'
        assert one_value(kind, data, file) == wanted


@pytest.mark.parametrize(
    ("kind", "column", "wanted"),
    [
        ("string", pa.array(["x"]), "x"),
        ("string", pa.array(["x"]).dictionary_encode(), "x"),
        ("string", pa.array(["x"], pa.large_string()), "x"),
        ("string", pa.array([b"x"]), "x"),
        ("string", pa.array([None]), None),
        ("int64", pa.array([7], pa.int8()), 7),
        ("float64", pa.array([7]), 7.0),
        ("timestamp", pa.array([MIDNIGHT.replace(tzinfo=None)]), MIDNIGHT),
        ("timestamp", pa.array([MIDNIGHT], pa.timestamp("ms", "Asia/Kathmandu")), MIDNIGHT),
        ("timestamp", pa.array([MIDNIGHT.date()]), MIDNIGHT),
    ],
)
def test_columns_are_read_as_the_field_they_are_for(kind, column, wanted):
    assert one_value(kind, parquet(id=["a"], v=column), "parquet") == wanted


NO_TEXT = pa.Array.from_buffers(
    pa.string(), 1, [None, pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xff")]
)


@pytest.mark.parametrize(
    ("kind", "file", "data", "told"),
    [
        ("int64", "csv", b"id,v\na,1\nb,7.5\n", "row 2: v '7.5' is not of type int64"),
        ("int64", "csv", b"id,v\na,9223372036854775808\n", "row 1: v '9223372036854775808' is not"),
        ("float64", "csv", b"id,v\na,nan\n", "row 1: v 'nan' is not of type float64"),
        ("float64", "csv", b"id,v\na,1e400\n", "row 1: v '1e400' is not"),
        ("float64", "parquet", parquet(id=["a"], v=[float("nan")]), "row 1: v nan is not"),
        ("float64", "parquet", parquet(id=["a"], v=[2**53 + 1]), "row 1: v 9007199254740993 is"),
        ("bool", "csv", b"id,v\na,yes\n", "row 1: v 'yes' is not of type bool"),
        ("timestamp", "csv", b"id,v\na,2026-01-01\n", "row 1: v '2026-01-01' is not"),
        ("timestamp", "csv", b"id,v\na,0000-01-01T00:00:00Z\n", "row 1: v '0000-01-01T00:00:00Z'"),
        ("timestamp", "ndjson", b'{"id":"a","v":1700000000}', "row 1: v 1700000000 is not"),
        ("timestamp", "parquet", parquet(id=["a"], v=[1_700_000_000]), "row 1: v 1700000000 is"),
        (
            "timestamp",
            "parquet",
            parquet(id=["a"], v=pa.array([1], pa.timestamp("ns"))),
            r"row 1: v a timestamp\[ns\] is not of type timestamp",
        ),
        ("string", "parquet", parquet(id=["a"], v=NO_TEXT), "row 1: v a string is not"),
        ("string", "ndjson", b'{"id":"a","v":{"w":1}}', "row 1: v {'w': 1} is not"),
        ("string", "ndjson", b'{"id":"a","v":1}\n{"id":"b","v":"x"}', "cannot be read as ndjson"),
        ("string", "ndjson", b"[1]", "a line is not an object"),
        ("string", "ndjson", b"{", "cannot be read as ndjson"),
        ("string", "csv", b"id,v\na,\xff\n", "cannot be read as csv"),
        ("string", "csv", b"", "cannot be read as csv: Empty CSV file"),
        ("string", "parquet", b"PAR1", "cannot be read as parquet"),
        ("string", "xlsx", b"", r"a .xlsx file; read are csv, jsonl, ndjson, parquet"),
        ("string", "csv", b"id,w\na,1\n", "no column 'v'; there are id, w"),
        ("string", "csv", b"id,v,v\na,1,2\n", "2 columns 'v'; there are id, v, v"),
        ("string", "csv", b"i,v\na,1\n", "no column 'id'; there are i, v"),
        ("string", "csv", b"id,v\na,1\n,2\n", "row 2 has no id"),
        ("string", "csv", b"id,v\na,1\nb,2\na,1\n", "id 'a' is there more than once"),
    ],
)
def test_a_file_that_cannot_be_used_says_where(kind, file, data, told):
    with pytest.raises(ContractError, match=told):
        looked_up(data, file, field("v", kind, lookup="one"))


@pytest.mark.parametrize(("limit", "told"), [("ROWS_MAX", "2 rows"), ("BYTES_MAX", "11 bytes")])
def test_a_file_has_its_limits(monkeypatch, limit, told):
    monkeypatch.setattr(lookups, limit, 1)
    with pytest.raises(ContractError, match=f"{told}; at most 1"):
        looked_up(b"id,v\na,1\nb,")


def test_a_device_that_is_not_there_has_the_default_or_no_value():
    fields = (
        field("v", "string", lookup="one")
        + field("w", "int64", lookup="one", default=5)
        + field("x", "int64", lookup="one", required=True)
    )
    rules = looked_up(b"id,v,w,x\na,one,1,1\nb,,,1\nc,three,3,\n", fields=fields)
    batch = applied(rules, *(like(d=d) for d in "abcd"))
    assert values(batch, "d", "v", "w", "x") == [("a", "one", 1, 1), ("b", None, 5, 1)]
    assert refused(batch) == [("check", "no_value", "x")] * 2


def test_what_is_found_is_judged():
    fields = field("v", "int64", lookup="one", min=2) + field(
        "w", "string", lookup="one", allowed=["x"]
    )
    rules = looked_up(b"id,v,w\na,2,x\nb,1,x\nc,2,y\nd,,\n", fields=fields)
    batch = applied(rules, *(like(d=d) for d in "abcd"))
    assert values(batch, "d") == ["a", "d"]
    assert refused(batch) == [("check", "out_of_range", "v"), ("check", "not_allowed", "w")]


def test_a_key_may_be_a_whole_number_and_absent():
    fields = field("site", "int64") + field("v", "string", lookup="one")
    rules = looked_up(b"id,v\n7,seven\n", fields=fields, on="site")
    assert values(applied(rules, like(site=7), like(site=8), like()), "v") == ["seven", None, None]


def test_a_key_may_be_an_attribute():
    fields = field("site", "string", attribute="Site") + field("v", "string", lookup="one")
    rules = looked_up(b"id,v\nx,here\n", fields=fields, on="site")
    assert values(applied(rules, like(), attributes=[{"Site": "x"}]), "v") == ["here"]


def test_the_keys_column_is_the_keys_whatever_fields_are_called():
    fields = field("id", "string", lookup="one", column="serial") + field(
        "v", "string", lookup="one", column="id"
    )
    rules = looked_up(b"id,serial\na,s1\ns1,other\n", fields=fields)
    assert values(applied(rules, like(d="a")), "id", "v") == [("s1", "a")]


def test_it_is_looked_up_by_the_value_and_not_by_its_hash():
    rules = looked_up(b"id,v\na,here\n", device='privacy = "hash"')
    batch = applied(rules, like(d="a"))
    assert values(batch, "v") == ["here"]
    assert values(batch, "d") != ["a"]


def test_several_lookups_and_what_is_made_of_them():
    text = "".join(
        f'[[lookup]]\nname = "{name}"\nfile = "{name}.csv"\non = "d"\nkey = "id"\n'
        for name in ("sites", "limits")
    )
    fields = (
        field("site", "string", lookup="sites", column="v")
        + field("most", "float64", lookup="limits", column="v")
        + field("over", "bool", expr="t > most")
        + field("t", "float64")
        + '[[filter]]\nname = "lab"\ndrop = "site == \'lab\'"\n'
    )
    data = {"sites": b"id,v\na,hall\nb,lab\n", "limits": b"id,v\na,5\nb,5\n"}
    rules = contract(text + fields, files=lambda lookup: data[lookup.name])
    batch = applied(rules, like(t=6), like(d="b", t=6), like(d="c", t=6))
    assert values(batch, "d", "site", "over") == [("a", "hall", True), ("c", None, None)]


def test_another_file_is_another_generation():
    one, other = (looked_up(f"id,v\na,{v}\n".encode()) for v in (1, 2))
    assert one.digest != other.digest
    assert Transform(one).generation.digest != Transform(other).generation.digest
    assert Transform(one).generation == Transform(looked_up(b"id,v\na,1\n")).generation


def test_a_pinned_digest_must_be_the_files():
    rules = looked_up(b"id,v\na,1\n")
    again = parse_contract(rules.source, "fleet.toml", one_file(b"id,v\na,1\n"))
    assert again.digest == rules.digest
    with pytest.raises(ContractError, match=r"one.csv is not of this digest"):
        parse_contract(rules.source, "fleet.toml", one_file(b"id,v\na,2\n"))


def test_a_contract_that_was_read_without_its_files_makes_no_rows():
    rules = parse_contract(looked_up(b"id,v\na,1\n").source, "fleet.toml")
    with pytest.raises(ValueError, match="lookup 'one' was not loaded"):
        applied(rules, like())
