"""`verify` proves a lake against what it has taken in, and names what is wrong with one.

Once landing is gone, the lake proves what was delivered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from infra.why import why
from sinks import landing, parquet
from sinks.lake import manifest, reader
from sinks.lake.manifest import Manifest
from sinks.lake.plan import Object
from tests import lakes
from tests.support import Cloud, reading
from tests.test_verify import SHARD, STREAM, TELEMETRY, State, checks, found

ID = "sensor-1/2026-11-24T12:00:00.000000Z"


def fresh_of(state: State) -> list[Object]:
    bucket = state.cloud.bucket
    return reader.fresh(bucket, manifest.read(bucket, "telemetry"))


@pytest.fixture
def state(account: Cloud) -> State:
    """A lake of three records, one of them sent twice, and one that it has not taken in yet."""
    made = State(account)
    made.deliver(reading(seq=1), b"no", reading(seq=1), reading(seq=2))
    lakes.taken_in(made.cloud.bucket, TELEMETRY)
    made.deliver(reading(seq=2), reading(seq=3), first=103)
    lakes.taken_in(made.cloud.bucket, TELEMETRY)
    made.deliver(reading(seq=4), first=110)
    return made


def file_of(state: State, kind: str = "data") -> str:
    """The lake's file of rows that stand, or of those that repeat them."""
    (part,) = manifest.read(state.cloud.bucket, "telemetry").partitions
    (file,) = part.files if kind == "data" else part.repeats
    return file.key


def changed(state: State, key: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Put other rows under a file's name."""
    rows = change(landing.read(state.cloud.bucket, key))
    state.cloud.bucket.put(key, parquet.encode(rows))


# ---- Proven ----


@pytest.mark.parametrize("gone", [0, 2])
def test_a_lake_is_proven_with_what_it_was_made_of_and_alone(state: State, gone: int) -> None:
    if gone:
        lakes.without_landing(state.cloud.bucket, TELEMETRY)
    report = state.verify()
    assert found(report) == set()
    assert report.counts["lake_rows"] == 3
    assert report.counts["taken_objects"] == 3
    assert report.counts["retired_objects"] == gone
    assert report.fates["delivered"] == 5
    assert any("3 objects it has taken in" in text for text in report.scope)


def test_hot_items_are_wanted_by_rows_of_the_lake_alone(state: State) -> None:
    lakes.taken_in(state.cloud.bucket, TELEMETRY)
    lakes.without_landing(state.cloud.bucket, TELEMETRY)
    assert state.verify().proven
    (pk, sk) = min(state.cloud.items())
    key = {"pk": {"S": pk}, "sk": {"S": sk}}
    state.cloud.dynamodb.delete_item(TableName=state.cloud.hot.name, Key=key)
    assert found(state.verify()) == {("missing", "hot_item", f"{pk} {sk}")}


# ---- Files ----


def test_a_deleted_file(state: State) -> None:
    key = file_of(state)
    state.delete(key)
    told = found(state.verify())
    assert ("unexplained", "lake_file", key) in told
    assert {name for _, name, _ in told} == {"lake", "lake_file", "partition"}


def test_a_deleted_file_whose_landing_is_gone_is_missed_by_its_records(state: State) -> None:
    lakes.taken_in(state.cloud.bucket, TELEMETRY)
    lakes.without_landing(state.cloud.bucket, TELEMETRY)
    for key in state.cloud.keys("lake/telemetry/data/"):
        state.delete(key)
    told = {one[2] for one in found(state.verify()) if one[1] == "record"}
    assert told == {f"{STREAM}/{SHARD}/{number}" for number in (100, 103, 104, 110)}


def test_a_flipped_byte(state: State) -> None:
    key = file_of(state)
    data = bytearray(state.cloud.bucket.get(key))
    data[len(data) // 2] ^= 1
    state.cloud.bucket.put(key, bytes(data))
    assert ("unexplained", "lake_file", key) in found(state.verify())


def test_a_row_that_a_file_lost(state: State) -> None:
    key = file_of(state)
    changed(state, key, lambda rows: rows.slice(1))
    assert {("missing", "lake"), ("unexplained", "lake_file"), ("unexplained", "partition")} == (
        checks(state.verify())
    )


def test_a_row_that_was_never_taken_in(state: State) -> None:
    [other] = fresh_of(state)
    fresh = landing.read(state.cloud.bucket, other.key)
    changed(state, file_of(state), lambda rows: pa.concat_tables([rows, fresh]))
    told = found(state.verify())
    assert ("unexplained", "lake_row", f"{STREAM}/{SHARD}/110") in told
    assert {check for _, check, _ in told} == {"lake_row", "lake_file", "partition"}


def test_a_row_that_stands_twice(state: State) -> None:
    changed(state, file_of(state), lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]))
    told = found(state.verify())
    assert {name for kind, check, name in told if (kind, check) == ("twice", "lake")} != set()
    assert ("unexplained", "partition") in {one[:2] for one in told}


def test_a_repeat_that_stands_for_an_earlier_one(state: State) -> None:
    """Rows of two files have changed places: the counts still agree."""
    bucket, data, again = state.cloud.bucket, file_of(state), file_of(state, "repeats")
    repeat = landing.read(bucket, again)
    same = pc.equal(landing.read(bucket, data)["_record_id"], repeat["_record_id"][0])
    stood = landing.read(bucket, data).filter(same)
    changed(state, data, lambda rows: pa.concat_tables([rows.filter(pc.invert(same)), repeat]))
    changed(state, again, lambda _: stood)
    told = found(state.verify())
    assert ("unexplained", "lake_standing", f"{STREAM}/{SHARD}/102") in told
    assert {check for _, check, _ in told} == {"lake_standing", "lake_file"}


# ---- Manifests ----


def rewritten(state: State, change: Callable[[Manifest], Manifest]) -> None:
    lake = manifest.read(state.cloud.bucket, "telemetry")
    manifest.commit(state.cloud.bucket, lake, change(lake))


@pytest.mark.parametrize("what", ["rows", "ids", "conflicts"])
def test_a_partition_that_miscounts(state: State, what: str) -> None:
    def more(lake: Manifest) -> Manifest:
        (part, *rest) = lake.partitions
        return replace(lake, partitions=(replace(part, **{what: getattr(part, what) + 1}), *rest))

    rewritten(state, more)
    assert found(state.verify()) == {("unexplained", "partition", "telemetry/2026-11-24/12")}


def test_an_object_taken_in_that_has_other_rows(state: State) -> None:
    key = state.key("quarantine")
    state.delete(key)
    assert ("unexplained", "taken", key) in found(state.verify())


def test_a_list_of_what_was_taken_in_that_is_gone(state: State) -> None:
    lake = manifest.read(state.cloud.bucket, "telemetry")
    state.delete(lake.absorbed[0].key)
    assert ("unexplained", "lake", lake.absorbed[0].key) in found(state.verify())


# ---- Why ----


def test_why_says_in_which_file_of_the_lake_a_record_stands(state: State) -> None:
    [first, again] = why(state.stores(), f"{ID}/1")
    assert first.elements[0]["lake"].startswith("lake/telemetry/data/2026-11-24/12/")
    assert first.elements[0]["lake_repeat"] is False
    assert again.elements[0]["lake"].startswith("lake/telemetry/repeats/2026-11-24/12/")
    [fresh] = why(state.stores(), f"{ID}/4")
    assert fresh.elements[0]["lake"] is None
    lakes.taken_in(state.cloud.bucket, TELEMETRY)
    lakes.without_landing(state.cloud.bucket, TELEMETRY)
    [alone, _] = why(state.stores(), f"{ID}/1")
    assert alone.fate == "delivered"
    assert alone.elements[0]["object"] == alone.elements[0]["lake"]
