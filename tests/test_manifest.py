"""The manifest of a lake: one committer wins, readers see the old or the new."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from infra.doubles.s3 import S3
from infra.doubles.world import Calm
from sinks.bucket import Bucket
from sinks.lake import manifest
from sinks.lake.manifest import ABSORBED, Absorbed, File, Manifest, Partition, Seal

FILE = File("lake/telemetry/data/2026-11-24/12/a.parquet", 10, 1_000, 5, 9, ("g1",))
HOUR = Partition(
    498_000, 10, 9, 1, "00ff00ff00ff00ff", (FILE,), seal=Seal(7, 8, exact=True, missing=0)
)


@pytest.fixture
def bucket() -> Bucket:
    s3 = S3(Calm())
    s3.create_bucket(Bucket="b")
    return Bucket(s3, "b")  # type: ignore[arg-type]  a double at the client's level


def test_where_nothing_was_committed_there_is_an_empty_lake(bucket: Bucket) -> None:
    assert manifest.read(bucket, "telemetry") == Manifest("telemetry")


def test_what_is_committed_is_read_back_whole(bucket: Bucket) -> None:
    old = manifest.read(bucket, "telemetry")
    new = manifest.commit(bucket, old, replace(old, partitions=(HOUR,), made_at=3))
    assert new.version == 1
    assert manifest.read(bucket, "telemetry") == new
    assert list(new.files) == [FILE]
    assert new.by_hour[498_000].seal == HOUR.seal
    assert HOUR.last_arrival == 9


def test_of_two_committers_the_slower_is_told_and_changes_nothing(bucket: Bucket) -> None:
    old = manifest.read(bucket, "telemetry")
    first = manifest.commit(bucket, old, replace(old, partitions=(HOUR,)))
    with pytest.raises(manifest.Raced, match="version 1 was committed meanwhile"):
        manifest.commit(bucket, old, replace(old, made_at=9))
    assert manifest.read(bucket, "telemetry") == first


def test_a_commit_whose_answer_was_lost_is_committed(bucket: Bucket) -> None:
    old = manifest.read(bucket, "telemetry")
    made = replace(old, partitions=(HOUR,))
    assert manifest.commit(bucket, old, made) == manifest.commit(bucket, old, made)
    assert manifest.read(bucket, "telemetry").version == 1


def test_an_older_manifest_can_still_be_read(bucket: Bucket) -> None:
    first = manifest.commit(bucket, manifest.read(bucket, "telemetry"), Manifest("telemetry"))
    second = manifest.commit(bucket, first, replace(first, partitions=(HOUR,)))
    assert list(manifest.history(bucket, "telemetry").values()) == [first, second]


def test_a_list_of_absorbed_objects_grows(bucket: Bucket) -> None:
    def listed(key: str) -> pa.Table:
        return pa.table({"key": [key], "rows": [3], "absorbed_at": [1]}, schema=ABSORBED)

    lake = Manifest("telemetry")
    noon = Absorbed("2026-11-24/12", "", 0)
    first = manifest.absorb(bucket, lake, noon, listed("b"))
    grown = replace(lake, absorbed=(first,))
    marked = replace(noon, marks_until=17, marked_by=("g1",))
    second = manifest.absorb(bucket, grown, marked, listed("a"))
    assert (second.objects, second.marks_until, second.marked_by) == (2, 17, ("g1",))
    keys = manifest.absorbed_keys(bucket, [second]).column("key").to_pylist()
    assert keys == ["a", "b"]


def test_the_arrival_hour_of_an_object_is_in_its_key() -> None:
    assert manifest.arrival_hour("landing/telemetry/2026-11-24/12/ab.parquet") == "2026-11-24/12"
