"""Kinesis in memory, on `SimulatedStream`, as producers know it: PutRecords, ListShards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.doubles.world import Call, World, refused
from infra.esm.simulated_stream import Shard, SimulatedStream

RECORDS_MAX = 500  # PutRecords: records a call
BYTES_MAX = 10_485_760  # and of all their data and keys
RECORD_BYTES_MAX = 1_048_576  # of one, until UpdateMaxRecordSize
KEY_CHARACTERS_MAX = 256


@dataclass
class Kinesis:
    """A client of the account whose streams are `streams`, by name: clients may share them."""

    world: World
    streams: dict[str, SimulatedStream] = field(default_factory=dict)

    def put_records(
        self,
        *,
        StreamName: str,  # noqa: N803  as boto3
        Records: Sequence[dict[str, Any]],  # noqa: N803
    ) -> dict[str, Any]:
        call = Call("kinesis", "PutRecords", StreamName)

        def act() -> dict[str, Any]:
            if StreamName not in self.streams:
                raise refused(call, "ResourceNotFoundException")
            _fits(call, Records)
            stream = self.streams[StreamName]
            answers = [self._put(call, stream, number, r) for number, r in enumerate(Records)]
            failed = sum("ErrorCode" in answer for answer in answers)
            return {"FailedRecordCount": failed, "Records": answers}

        return self.world.effect(call, act)

    def list_shards(self, *, StreamName: str) -> dict[str, Any]:  # noqa: N803  as boto3
        call = Call("kinesis", "ListShards", StreamName)

        def act() -> dict[str, Any]:
            if StreamName not in self.streams:
                raise refused(call, "ResourceNotFoundException")
            return {
                "Shards": [_listed(shard) for shard in self.streams[StreamName].shards.values()]
            }

        return self.world.effect(call, act)

    def _put(
        self, call: Call, stream: SimulatedStream, number: int, record: dict[str, Any]
    ) -> dict[str, Any]:
        key, hash_key = record["PartitionKey"], record.get("ExplicitHashKey")
        at = None if hash_key is None else int(hash_key)
        shard = stream.shard_of(key, at).name
        if not self.world.takes(call, (key, str(number))):
            detail = f"Rate exceeded for shard {shard} in stream {call.detail}"
            return {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": detail}
        made = stream.put(key, record["Data"], self.world.clock(), at)
        return {"SequenceNumber": str(made.sequence), "ShardId": shard}


def _listed(shard: Shard) -> dict[str, Any]:
    """A shard as ListShards tells it; a closed one says where it ends."""
    first, *more = (*shard.parents, None)
    parents = {"ParentShardId": first, "AdjacentParentShardId": next(iter(more), None)}
    span = {"StartingSequenceNumber": "0"}
    if shard.closed:
        span["EndingSequenceNumber"] = str(max((r.sequence for r in shard.records), default=0))
    return {
        "ShardId": shard.name,
        **{name: parent for name, parent in parents.items() if parent is not None},
        "HashKeyRange": {
            "StartingHashKey": str(shard.low),
            "EndingHashKey": str(shard.high - 1),
        },
        "SequenceNumberRange": span,
    }


def _fits(call: Call, records: Sequence[dict[str, Any]]) -> None:
    sizes = [(len(r["PartitionKey"].encode()), len(r["Data"])) for r in records]
    if not 1 <= len(records) <= RECORDS_MAX or max(sum(size) for size in sizes) > RECORD_BYTES_MAX:
        raise refused(call, "ValidationException")
    keys = {len(r["PartitionKey"]) for r in records}
    if not all(1 <= length <= KEY_CHARACTERS_MAX for length in keys):
        raise refused(call, "InvalidArgumentException")
    if sum(key + data for key, data in sizes) > BYTES_MAX:
        raise refused(call, "InvalidArgumentException")
