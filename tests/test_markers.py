"""Markers: each ends as one mark, whatever the contract, and the records beside it as ever."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.contracts.samples import sample_of
from infra.contracts.trial import tried
from tests.support import NOON, SOME, delivery, reading
from transform import markers
from transform.contract_file import load_contract
from transform.kpl import aggregate
from transform.pipeline import Transform
from transform.records import Batch

SHAPES = sorted((Path(__file__).parent / "shapes").glob("*.toml"))
TELEMETRY = load_contract("telemetry")
MARKER = markers.body("shardId-000000000001", NOON)
RAW = "raw/2026-11-24/12/x.parquet"
BODIES = st.sampled_from(
    [
        *(MARKER, MARKER, reading(), reading("sensor-2", seq=7), b"no", b"", b"[]"),
        *(MARKER + b" ", MARKER[:-1], b"[%b]" % MARKER, gzip.compress(MARKER, mtime=0)),
        aggregate([("k", MARKER), ("k", reading(seq=3))]),
    ]
)


def applied(*bodies: bytes, first: int = 0) -> Batch:
    return Transform(TELEMETRY).apply(delivery(bodies).table(), RAW, first)


def test_a_marker_is_dropped_by_its_own_rule_at_its_own_position():
    batch = applied(reading(), MARKER, reading("sensor-2"), first=10)
    assert (batch.counts.received, batch.counts.delivered, batch.counts.dropped) == (3, 2, 1)
    [mark] = batch.drops.to_pylist()
    whole = delivery([reading(), MARKER, reading("sensor-2")])
    assert (mark["_rule"], mark["_sequence"], mark["_index"], mark["_elements"]) == (
        "_marker",
        whole.sequences[1],
        11,
        1,
    )
    assert batch.rows.column("_index").to_pylist() == [10, 12]
    assert batch.rows.column("_sequence").to_pylist() == whole.sequences[::2]
    assert batch.hot_rows == 2


@pytest.mark.parametrize("name", ["telemetry", "environment-sensors", *map(str, SHAPES)])
def test_whatever_the_contract_a_marker_is_a_marker(name: str):
    batch = Transform(load_contract(name)).apply(delivery([MARKER, MARKER]).table(), RAW)
    assert batch.drops.column("_rule").to_pylist() == ["_marker"] * 2
    assert (batch.rows.num_rows, batch.rejects.num_rows, batch.hot_rows) == (0, 0, 0)


@pytest.mark.parametrize(
    "body",
    [
        MARKER + b"\n",
        MARKER[:-1],
        b" " + MARKER,
        b"[%b]" % MARKER,
        gzip.compress(MARKER, mtime=0),
        aggregate([("k", MARKER)]),
        json.dumps(json.loads(MARKER)).encode(),
        MARKER.replace(b'"at"', b'"device_id":"d","at"'),
    ],
)
def test_only_the_exact_body_of_a_source_record_is_a_marker(body: bytes):
    batch = applied(body)
    assert (batch.counts.dropped, batch.counts.quarantined) == (0, 1)


@SOME
@given(st.lists(BODIES, max_size=12), st.integers(0, 3))
def test_records_beside_markers_come_to_what_they_come_to_without_them(
    bodies: list[bytes], first: int
):
    whole, made = delivery(bodies), applied(*bodies, first=first)
    others = [n for n, body in enumerate(bodies) if body != MARKER]
    alone = Transform(TELEMETRY).apply(whole.table().take(pa.array(others, pa.int32())), RAW)
    for name in ("rows", "rejects"):
        mine, theirs = getattr(made, name), getattr(alone, name)
        assert mine.schema == theirs.schema
        places = [first + others[index] for index in theirs.column("_index").to_pylist()]
        assert mine.column("_index").to_pylist() == places
        assert mine.drop_columns("_index").equals(theirs.drop_columns("_index"))
    marks = [row["_index"] for row in made.drops.to_pylist() if row["_rule"] == "_marker"]
    assert marks == [first + n for n, body in enumerate(bodies) if body == MARKER]
    assert made.hot_rows == alone.hot_rows


def test_a_sample_with_a_marker_in_it_tells_the_rule():
    trial = tried(TELEMETRY, sample_of(reading() + b"\n" + MARKER, "sample"), NOON)
    assert (trial.delivered, trial.dropped_by) == (1, {"_marker": 1})


@pytest.mark.parametrize(("shard", "at"), [("", NOON), ("a b", NOON), ("s", 0), ("s", 10**16)])
def test_what_would_not_be_a_marker_is_not_made(shard: str, at: int):
    with pytest.raises(ValueError, match="no marker says"):
        markers.body(shard, at)
