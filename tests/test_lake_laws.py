"""The lake says what the rule says: whatever was taken in, in whatever order, by whatever runs."""

from __future__ import annotations

import os
from collections import defaultdict

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks import landing
from sinks.bucket import Bucket
from sinks.lake import compact, manifest
from sinks.lake.plan import Object, Plan
from tests import lakes


@settings(max_examples=int(os.environ.get("LAKE_WORLDS", "60")), deadline=None)
@given(lakes.worlds(), st.sampled_from((0, 0, 8)))
def test_the_lake_and_its_reader_say_what_the_rule_says(world: lakes.World, grown: int) -> None:
    """With `grown` 0 hours are added to wherever that can be; with 8 most are made anew."""
    bucket = lakes.made()
    for number, attempts in enumerate(world.rounds):
        objects: list[Object] = []
        for place, attempt in enumerate(attempts):
            objects += lakes.write(bucket, world, attempt, f"raw/{number}-{place}")
        assert lakes.told(bucket) == lakes.rule(bucket), "before a compaction"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compact, "GROWN_TIMES", grown)
            done = compact.compact(bucket, lakes.CONTRACT, Plan(tuple(objects), 0))
        assert lakes.told(bucket) == lakes.rule(bucket), "after it"
        assert lakes.lake_rows(bucket) == lakes.rule(bucket), "the lake alone"
        check_partitions(bucket, done.lake)


def check_partitions(bucket: Bucket, lake: manifest.Manifest) -> None:
    """What a manifest says of its partitions is what their files hold."""
    for partition in lake.partitions:
        held = pa.concat_tables([landing.read(bucket, file.key) for file in partition.files])
        digests_of: dict[str, set[bytes]] = defaultdict(set)
        for row in held.select(["_record_id", "_digest"]).to_pylist():
            digests_of[row["_record_id"]].add(row["_digest"])
        conflicts = sum(len(digests) > 1 for digests in digests_of.values())
        told = (partition.rows, partition.ids, partition.conflicts)
        assert told == (held.num_rows, len(digests_of), conflicts)
        assert {at // lakes.HOUR for at in held.column("at").cast("int64").to_pylist()} == {
            partition.hour
        }
        digests = held.column("_digest").to_pylist()
        words = [int.from_bytes(d[at : at + 8], "little") for d in digests for at in (0, 8)]
        assert partition.digest == f"{sum(words) % 2**64:016x}"
