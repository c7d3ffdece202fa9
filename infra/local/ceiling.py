"""What the emulator itself can do, measured alone: the ceiling the path's own rate is read against.

A record has to be read from Kinesis once and written to DynamoDB once. With D items a second and K
records a second, both by the emulator's one process, no path can do better than 1 / (1/D + 1/K);
with a table that has a process of its own, none better than the slower of the two.

The emulator is slower than the client that measures it. The fast table is not: it is measured with
requests that are made and signed beforehand.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from http.client import HTTPConnection, HTTPResponse
from typing import Any

from infra import topology
from infra.local.emulator import ENVIRONMENT, REGION, EmulatorError
from infra.local.proxy import Request, address_of
from infra.local.resources import Client, create_table
from infra.local.signature import Signer
from sinks.deadline import Deadline
from sinks.table import BATCH_ITEMS_MAX, Table, Waiting

SCRATCH = "millrace-ceiling"
WRITERS = 4
WRITE_SECONDS_MAX = 60.0
PUT_MAX = 500
WRITE = "DynamoDB_20120810.BatchWriteItem"
TAKEN = b'{"UnprocessedItems":{}}'


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
        rate = _sent(table_url, puts) if table_url else _items(dynamodb, puts)
    finally:
        dynamodb.delete_table(TableName=SCRATCH)
    return Ceiling(rate, _records(client("kinesis"), bodies), apart=bool(table_url))


def _items(dynamodb: Any, puts: Sequence[bytes]) -> float:
    started = time.perf_counter()
    deadline = Deadline(time.time() + WRITE_SECONDS_MAX, time.time)
    waiting = Waiting(time.sleep, lambda low, high: (low + high) / 2)
    table = Table(dynamodb, SCRATCH, threads=WRITERS)
    undone = table.put_each(len(puts), puts, deadline, waiting)
    return (len(puts) - len(undone)) / (time.perf_counter() - started)


def _sent(url: str, puts: Sequence[bytes]) -> float:
    host, port = address_of(url)
    keys = (ENVIRONMENT["AWS_ACCESS_KEY_ID"], ENVIRONMENT["AWS_SECRET_ACCESS_KEY"])
    signer = Signer("dynamodb", REGION, *keys)
    requests = []
    for at in range(0, len(puts), BATCH_ITEMS_MAX):
        some = b",".join(puts[at : at + BATCH_ITEMS_MAX])
        body = b'{"RequestItems":{"%s":[%s]}}' % (SCRATCH.encode(), some)
        requests.append(signer.post(f"{host}:{port}", WRITE, body, datetime.now(UTC)))

    def send(some: Sequence[Request]) -> None:
        with closing(HTTPConnection(host, port)) as connection:
            connection.connect()
            for request in some:
                connection.sock.sendall(request.head + request.body)
                answer = HTTPResponse(connection.sock)
                answer.begin()
                if answer.status != HTTPStatus.OK or answer.read() != TAKEN:
                    raise EmulatorError(f"the fast table refused an item: {answer.read()!r}")

    started = time.perf_counter()
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(send, [requests[n::WRITERS] for n in range(WRITERS)]))
    return len(puts) / (time.perf_counter() - started)


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
