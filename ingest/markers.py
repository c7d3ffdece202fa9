"""Markers into every shard that takes records: an idle shard is heard of by them alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sinks.errors import Unavailable, translated
from sinks.lake.watermark import Shard
from transform import markers

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient

KEY = "_millrace"
RECORDS_MAX = 500  # Kinesis PutRecords: records a call
PARENTS = ("ParentShardId", "AdjacentParentShardId")


def shards_of(kinesis: KinesisClient, stream: str) -> list[Shard]:
    """The shards that a stream lists, closed ones as long as it keeps their records."""
    asked: dict[str, Any] = {"StreamName": stream}
    found: list[Any] = []
    while asked:
        with translated(f"list the shards of {stream}"):
            answer = kinesis.list_shards(**asked)
        found += answer["Shards"]
        asked = {"NextToken": answer["NextToken"]} if answer.get("NextToken") else {}
    parents = {shard.get(name) for shard in found for name in PARENTS}
    return [
        Shard(
            name=shard["ShardId"],
            start=shard["HashKeyRange"]["StartingHashKey"],
            parents=tuple(shard[name] for name in PARENTS if shard.get(name)),
            closed=shard["ShardId"] in parents
            or "EndingSequenceNumber" in shard["SequenceNumberRange"],
        )
        for shard in found
    ]


def put(kinesis: KinesisClient, stream: str, shards: Iterable[Shard], at_micros: int) -> int:
    """Put a marker into each open shard; returns how many. Raises `Unavailable` where one failed.

    The next round makes up for a failed one: markers are all alike but for their moment.
    """
    entries: list[Any] = [
        {
            "Data": markers.body(shard.name, at_micros),
            "PartitionKey": KEY,
            "ExplicitHashKey": shard.start,
        }
        for shard in shards
        if not shard.closed
    ]
    for start in range(0, len(entries), RECORDS_MAX):
        some = entries[start : start + RECORDS_MAX]
        with translated(f"put markers into {stream}"):
            answer = kinesis.put_records(StreamName=stream, Records=some)
        if failed := answer["FailedRecordCount"]:
            raise Unavailable(f"{failed} of {len(some)} markers were not taken by {stream}")
    return len(entries)
