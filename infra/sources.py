"""What a pipeline's sources still hold: the stream read again, the queue counted.

A stream is read from its oldest record to each shard's checkpoint: whatever lies there was passed,
so it must be somewhere. A queue cannot be read without receiving from it: it is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from infra.evidence import HELD, Held
from infra.local.mappings import shards_of
from infra.local.resources import Client, queue_url, queues_of
from infra.parked import digest
from infra.topology import Topology

GET_RECORDS_MAX = 10_000  # Kinesis GetRecords: records a call
QUEUE_COUNTS = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


def held(topology: Topology, client: Client, checkpoints: Path) -> Held:
    """What a pipeline's stream and queue hold, `checkpoints` being the local runtime's folder."""
    stream = topology.stream.name
    queues = [queue for queue, _ in queues_of(topology, client)]
    kinesis = client("kinesis")
    passed: dict[tuple[str, str], int] = {}
    found: list[tuple[str, str, str, str]] = []
    for shard in sorted(shards_of(kinesis, stream)):
        file = checkpoints / f"{stream}.{shard}"
        if file.exists():
            until = passed[stream, shard] = int(file.read_text())
            found += [
                (stream, shard, record["SequenceNumber"], digest(record["Data"]))
                for record in _records(kinesis, stream, shard, until)
            ]
    return Held(
        records=_table(found),
        passed=passed,
        waiting={
            queue.name: _messages(client("sqs"), queue_url(client, queue)) for queue in queues
        },
        scope=(
            f"stream {stream}: read again from its oldest record to its checkpoints, "
            f"{len(found):,} records in {len(passed)} shards",
        ),
        unchecked=tuple(
            f"queue {queue.name}: what a producer sent and Lambda never received cannot be seen; "
            "only sequence numbers of the devices can tell"
            for queue in queues
        ),
    )


def together(parts: Iterable[Held]) -> Held:
    """The sources of several pipelines as one."""
    every = list(parts)
    return Held(
        records=pa.concat_tables([HELD.empty_table(), *(part.records for part in every)]),
        passed={shard: at for part in every for shard, at in part.passed.items()},
        waiting={queue: count for part in every for queue, count in part.waiting.items()},
        scope=tuple(text for part in every for text in part.scope),
        unchecked=tuple(text for part in every for text in part.unchecked),
    )


def _records(kinesis: Any, stream: str, shard: str, until: int) -> Iterator[Any]:
    """A shard's records from its oldest to this sequence number."""
    iterator = kinesis.get_shard_iterator(
        StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    while iterator:
        answer = kinesis.get_records(ShardIterator=iterator, Limit=GET_RECORDS_MAX)
        for record in answer["Records"]:
            if int(record["SequenceNumber"]) > until:
                return
            yield record
        if not answer["Records"] and not answer.get("MillisBehindLatest"):
            return
        iterator = answer.get("NextShardIterator")


def _messages(sqs: Any, url: str) -> int:
    asked = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(QUEUE_COUNTS))
    return sum(int(asked["Attributes"].get(name, 0)) for name in QUEUE_COUNTS)


def _table(found: list[tuple[str, str, str, str]]) -> pa.Table:
    columns = list(zip(*found, strict=True)) or [()] * len(HELD)
    return pa.table([pa.array(column, pa.string()) for column in columns], schema=HELD)
