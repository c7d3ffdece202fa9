"""DynamoDB, the little of it that Millrace uses: batches of puts, queries by key, a scan.

A put replaces the item of its key. Millrace's items are functions of their key, so any order and
any repeat of puts leaves the same table.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from sinks.deadline import Deadline
from sinks.errors import Unavailable, translated

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

BATCH_ITEMS_MAX = 25  # BatchWriteItem: puts a call
KEY_BYTES_MAX = 2_048  # partition key
SORT_KEY_BYTES_MAX = 1_024
ITEM_BYTES_MAX = 409_600
BACKOFF_FIRST_SECONDS = 0.05
BACKOFF_MAX_SECONDS = 5.0

Item = dict[str, dict[str, Any]]
"""An item in DynamoDB's own JSON: `{"name": {"S": "text"}, "count": {"N": "1"}}`."""

Key = tuple[str, str]
"""Partition key and sort key."""


@dataclass(frozen=True)
class Waiting:
    """How to wait: `sleep` in seconds, and `uniform(low, high)` for full jitter."""

    sleep: Callable[[float], None]
    uniform: Callable[[float, float], float]


@dataclass(frozen=True)
class Table:
    """One DynamoDB table with string keys `pk` and `sk`."""

    client: DynamoDBClient
    name: str
    threads: int = 4

    def put_all(self, items: Mapping[Key, Item], deadline: Deadline, waiting: Waiting) -> set[Key]:
        """Put every item, each key once; returns the keys not acknowledged by the deadline.

        Throttles and UnprocessedItems are retried with full jitter. Raises `Misconfigured`, and
        botocore's ClientError for a request that DynamoDB can never accept.
        """
        pairs = list(items.items())
        chunks = [pairs[at : at + BATCH_ITEMS_MAX] for at in range(0, len(pairs), BATCH_ITEMS_MAX)]
        give_up = threading.Event()
        undone: set[Key] = set()
        with ThreadPoolExecutor(min(self.threads, max(len(chunks), 1))) as pool:
            for left in pool.map(
                lambda chunk: self._put_chunk(chunk, deadline, waiting, give_up), chunks
            ):
                undone.update(left)
        return undone

    def query(self, pk: str, low: str, high: str) -> Iterator[Item]:
        """Items of one partition with `low <= sk <= high`, in the order of their sort key."""
        with translated(f"query {self.name}"):
            pages = self.client.get_paginator("query").paginate(
                TableName=self.name,
                KeyConditionExpression="pk = :pk AND sk BETWEEN :low AND :high",
                ExpressionAttributeValues={
                    ":pk": {"S": pk},
                    ":low": {"S": low},
                    ":high": {"S": high},
                },
            )
            for page in pages:
                yield from cast("list[Item]", page["Items"])

    def scan(self) -> Iterator[Item]:
        """Every item. It reads the whole table: for accounts and tests, not for a path."""
        with translated(f"scan {self.name}"):
            for page in self.client.get_paginator("scan").paginate(TableName=self.name):
                yield from cast("list[Item]", page["Items"])

    def all_keys(self) -> Iterator[Key]:
        """Every item's key, by scanning."""
        with translated(f"scan {self.name}"):
            pages = self.client.get_paginator("scan").paginate(
                TableName=self.name, ProjectionExpression="pk, sk"
            )
            for page in pages:
                for item in page["Items"]:
                    yield item["pk"]["S"], item["sk"]["S"]

    def _put_chunk(
        self,
        chunk: Sequence[tuple[Key, Item]],
        deadline: Deadline,
        waiting: Waiting,
        give_up: threading.Event,
    ) -> set[Key]:
        pending: list[Any] = [{"PutRequest": {"Item": item}} for _, item in chunk]
        pause = BACKOFF_FIRST_SECONDS
        while pending and deadline.left > 0 and not give_up.is_set():
            try:
                refused = self._attempt(pending)
            except BaseException:
                give_up.set()  # here, not by who reads the results: that one may wait for another
                raise
            if refused:
                waiting.sleep(min(waiting.uniform(0, pause), max(deadline.left, 0)))
                pause = min(2 * pause, BACKOFF_MAX_SECONDS)
            pending = refused
        return {
            (put["PutRequest"]["Item"]["pk"]["S"], put["PutRequest"]["Item"]["sk"]["S"])
            for put in pending
        }

    def _attempt(self, pending: list[Any]) -> list[Any]:
        """One call; what it did not take. A lost answer or a throttled call took nothing."""
        try:
            with translated(f"write to {self.name}"):
                answer = self.client.batch_write_item(RequestItems={self.name: pending})
        except Unavailable:
            return pending
        # DynamoDB's own answer always has it; without, it is a proxy's and acknowledges nothing.
        unprocessed = cast("dict[str, Any]", answer).get("UnprocessedItems")
        return pending if unprocessed is None else list(unprocessed.get(self.name, []))
