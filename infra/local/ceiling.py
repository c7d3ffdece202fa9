"""What the emulator itself can do, measured alone: the ceiling the path's own rate is read against.

A record has to be read from Kinesis once and written to DynamoDB once, both by the emulator's one
process. With D items a second and K records a second, no path can do better than 1 / (1/D + 1/K).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from infra import topology
from infra.local.resources import Client, create_table
from sinks.deadline import Deadline
from sinks.table import Table, Waiting

SCRATCH = "millrace-ceiling"
WRITERS = 4
WRITE_SECONDS_MAX = 60.0
PUT_MAX = 500


@dataclass(frozen=True)
class Ceiling:
    """`items` DynamoDB items and `records` Kinesis records a second, each alone."""

    items: float
    records: float

    @property
    def combined(self) -> float:
        """Records a second that both together allow."""
        return 1 / (1 / self.items + 1 / self.records)


def measure(client: Client, puts: Sequence[bytes], bodies: Sequence[bytes]) -> Ceiling:
    """Make these puts and read these records, on a table and a stream made for it alone."""
    return Ceiling(_items(client("dynamodb"), puts), _records(client("kinesis"), bodies))


def _items(dynamodb: Any, puts: Sequence[bytes]) -> float:
    create_table(dynamodb, topology.Table(SCRATCH))
    try:
        started = time.perf_counter()
        deadline = Deadline(time.time() + WRITE_SECONDS_MAX, time.time)
        waiting = Waiting(time.sleep, lambda low, high: (low + high) / 2)
        table = Table(dynamodb, SCRATCH, threads=WRITERS)
        undone = table.put_each(len(puts), puts, deadline, waiting)
        return (len(puts) - len(undone)) / (time.perf_counter() - started)
    finally:
        dynamodb.delete_table(TableName=SCRATCH)


def _records(kinesis: Any, bodies: Sequence[bytes]) -> float:
    kinesis.create_stream(StreamName=SCRATCH, ShardCount=1)
    try:
        kinesis.get_waiter("stream_exists").wait(
            StreamName=SCRATCH, WaiterConfig={"Delay": 1, "MaxAttempts": 30}
        )
        batches = [bodies[at : at + PUT_MAX] for at in range(0, len(bodies), PUT_MAX)]
        with ThreadPoolExecutor(2) as pool:
            list(
                pool.map(
                    lambda batch: kinesis.put_records(
                        StreamName=SCRATCH,
                        Records=[{"PartitionKey": "k", "Data": body} for body in batch],
                    ),
                    batches,
                )
            )
        shard = kinesis.list_shards(StreamName=SCRATCH)["Shards"][0]["ShardId"]
        iterator = kinesis.get_shard_iterator(
            StreamName=SCRATCH, ShardId=shard, ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        read = 0
        started = time.perf_counter()
        while read < len(bodies):
            answer = kinesis.get_records(ShardIterator=iterator, Limit=10_000)
            iterator = answer["NextShardIterator"]
            read += len(answer["Records"])
        return read / (time.perf_counter() - started)
    finally:
        kinesis.delete_stream(StreamName=SCRATCH)
