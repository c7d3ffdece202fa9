"""What the emulator itself can do, measured alone: the ceiling the path's own rate is read against.

A record has to be read from Kinesis once and written to DynamoDB once. With D items a second and K
records a second, both by the emulator's one process, no path can do better than 1 / (1/D + 1/K);
with a table that has a process of its own, none better than the slower of the two.

The emulator is slower than the client that measures it. The fast table is not: it is asked over the
wire, with which making and signing requests costs least.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from infra import topology
from infra.local.emulator import ENVIRONMENT
from infra.local.lambdas import NO_CREDENTIALS
from infra.local.resources import Client, create_table
from sinks.deadline import Deadline
from sinks.table import Table, Waiting
from sinks.wire.account import Account
from sinks.wire.connection import Patience

SCRATCH = "millrace-ceiling"
WRITERS = 4
WRITE_SECONDS_MAX = 60.0
PUT_MAX = 500
PATIENCE = Patience(connect=3, read=5)


@dataclass(frozen=True)
class Ceiling:
    """`items` DynamoDB items and `records` Kinesis records a second, each alone.

    `apart` is whether two processes do it.
    """

    items: float
    records: float
    apart: bool = False

    @property
    def combined(self) -> float:
        """Records a second that both together allow."""
        if self.apart:
            return min(self.items, self.records)
        return 1 / (1 / self.items + 1 / self.records)


def measure(
    client: Client, puts: Sequence[bytes], bodies: Sequence[bytes], table_url: str = ""
) -> Ceiling:
    """Make these puts and read these records, on a table and a stream made for it alone.

    `table_url` is that of the fast table, if there is one.
    """
    dynamodb = client("dynamodb")
    create_table(dynamodb, topology.Table(SCRATCH))
    try:
        scratch = Table(dynamodb, SCRATCH, WRITERS)
        if table_url:
            url = {"AWS_ENDPOINT_URL_DYNAMODB": table_url}
            with closing(Account({**ENVIRONMENT, **NO_CREDENTIALS, **url})) as wire:
                writes = wire.writes(SCRATCH, PATIENCE)
                rate = _items(replace(scratch, writes=writes), puts)
        else:
            rate = _items(scratch, puts)
    finally:
        dynamodb.delete_table(TableName=SCRATCH)
    return Ceiling(rate, _records(client("kinesis"), bodies), apart=bool(table_url))


def _items(table: Table, puts: Sequence[bytes]) -> float:
    started = time.perf_counter()
    deadline = Deadline(time.time() + WRITE_SECONDS_MAX, time.time)
    waiting = Waiting(time.sleep, lambda low, high: (low + high) / 2)
    undone = table.put_each(len(puts), puts, deadline, waiting)
    return (len(puts) - len(undone)) / (time.perf_counter() - started)


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
