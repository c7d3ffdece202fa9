"""DynamoDB, the little of it that Millrace uses: batches of puts, queries by key, a scan.

A put replaces the item of its key. Millrace's items are functions of their key, so any order and
any repeat of puts leaves the same table; where they are not, a put leaves a newer item alone.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import orjson

from sinks.deadline import Deadline
from sinks.errors import Refused, Unavailable, translated
from sinks.writes import (
    CONDITION_FAILED,
    NEWEST_BY,
    BotoNewest,
    BotoWrites,
    Together,
    Writes,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

BATCH_ITEMS_MAX = 25  # BatchWriteItem: puts a call
CALLS_MAX = 64  # of a wave: at 5 ms a call, three times what one core can put into them
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
    """One DynamoDB table with string keys `pk` and `sk`.

    Puts go by `writes`, those that must leave a newer item alone one by one by `newest`; or both by
    the client. `threads` is how many calls their first wave has; where it takes threads to have
    them under way, how many there are.
    """

    client: DynamoDBClient
    name: str
    threads: int = 4
    writes: Writes | None = None
    newest: Writes | None = None

    def put_all(self, items: Mapping[Key, Item], deadline: Deadline, waiting: Waiting) -> set[Key]:
        """Put every item, each key once; returns the keys not acknowledged by the deadline."""
        keys = list(items)
        left = self.put_each(len(keys), map(put_text, items.values()), deadline, waiting)
        return {keys[place] for place in left}

    def put_each(
        self,
        count: int,
        puts: Iterable[bytes],
        deadline: Deadline,
        waiting: Waiting,
        *,
        newest: bool = False,
    ) -> set[int]:
        """Make these puts, each key once; returns the places of those not acknowledged in time.

        Puts are texts as `Writes` takes them, `count` of them, made as they are put. With `newest`
        each leaves an item alone that is newer by `NEWEST_BY`, and is acknowledged all the same;
        then a key may come more than once.

        Calls go out in waves: one that is taken whole makes the next one twice as wide, and once
        there was a refusal a call wider; one with a refusal halves it and is followed by a jittered
        pause. What was refused waits behind all
        else, so that a hot partition does not hold up the others; the pauses grow only once there
        is nothing left that was not tried. Raises `Misconfigured`, and `Refused` for a request that
        DynamoDB can never accept.
        """
        fresh = enumerate(puts)
        untried, refused = count, deque[_Put]()
        width, pause, step = self.threads, BACKOFF_FIRST_SECONDS, CALLS_MAX
        most = 1 if newest else BATCH_ITEMS_MAX
        with self._calling(math.ceil(untried / most), newest=newest) as call_all:
            while (untried or refused) and deadline.left > 0:
                wave = list(islice(fresh, width * most))
                untried -= len(wave)
                more = min(width * most - len(wave), len(refused))
                wave += [refused.popleft() for _ in range(more)]
                again = call_all(_batches(wave, most), deadline)
                refused.extend(again)
                if not again:
                    width, pause = min(width + min(width, step), CALLS_MAX), BACKOFF_FIRST_SECONDS
                    continue
                waiting.sleep(min(waiting.uniform(0, pause), max(deadline.left, 0)))
                width, step = max(width // 2, 1), 1
                pause = pause if untried > 0 else min(2 * pause, BACKOFF_MAX_SECONDS)
        return {*(place for place, _ in refused), *range(count - untried, count)}

    def delete_all(self, keys: Iterable[Key], deadline: Deadline, waiting: Waiting) -> set[Key]:
        """Delete every key, there or not; returns those not acknowledged by the deadline.

        Throttles and UnprocessedItems are retried with full jitter, one batch after the other.
        """
        pending = [
            {"DeleteRequest": {"Key": {"pk": {"S": pk}, "sk": {"S": sk}}}} for pk, sk in set(keys)
        ]
        pause = BACKOFF_FIRST_SECONDS
        while pending and deadline.left > 0:
            chunk, rest = pending[:BATCH_ITEMS_MAX], pending[BATCH_ITEMS_MAX:]
            refused = self._delete(chunk)
            if refused:
                waiting.sleep(min(waiting.uniform(0, pause), max(deadline.left, 0)))
                pause = min(2 * pause, BACKOFF_MAX_SECONDS)
            else:
                pause = BACKOFF_FIRST_SECONDS
            pending = rest + refused
        keys_left = (one["DeleteRequest"]["Key"] for one in pending)
        return {(key["pk"]["S"], key["sk"]["S"]) for key in keys_left}

    def delete_newest(self, key: Key, at: str) -> None:
        """Delete an item if it is still of this place in time."""
        pk, sk = key
        try:
            with translated(f"write to {self.name}"):
                self.client.delete_item(
                    TableName=self.name,
                    Key={"pk": {"S": pk}, "sk": {"S": sk}},
                    ConditionExpression="#at = :at",
                    ExpressionAttributeNames={"#at": NEWEST_BY},
                    ExpressionAttributeValues={":at": {"S": at}},
                )
        except Refused as refused:
            if refused.code != CONDITION_FAILED:
                raise

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
        """Every item's key, by scanning; of one that a newer one replaces, its place in time."""
        with translated(f"scan {self.name}"):
            pages = self.client.get_paginator("scan").paginate(
                TableName=self.name,
                ProjectionExpression="pk, sk, #at",
                ExpressionAttributeNames={"#at": NEWEST_BY},
            )
            for page in pages:
                for item in page["Items"]:
                    yield item["pk"]["S"], item.get(NEWEST_BY, item["sk"])["S"]

    @property
    def _writes(self) -> Writes:
        return self.writes or BotoWrites(self.client, self.name)

    @property
    def _newest(self) -> Writes:
        return self.newest or BotoNewest(self.client, self.name)

    @contextmanager
    def _calling(self, calls: int, *, newest: bool) -> Iterator[_CallAll]:
        """How a wave is called: in threads, or right here where one thread would do."""
        writes = self._newest if newest else self._writes
        if hasattr(writes, "write_each"):  # to ask whether it is a `Together` takes 20 us
            yield partial(_attempt_each, cast("Together", writes))
            return

        broken = threading.Event()

        def call(batch: list[_Put], deadline: Deadline) -> list[_Put]:
            if deadline.left <= 0 or broken.is_set():
                return batch
            try:
                return _attempt(writes, batch)
            except BaseException:
                broken.set()  # here, not by who reads the results: the others of the wave end too
                raise

        def call_here(wave: list[list[_Put]], deadline: Deadline) -> list[_Put]:
            return [put for batch in wave for put in call(batch, deadline)]

        threads = min(self.threads, calls)
        if threads <= 1:
            yield call_here
            return
        with ThreadPoolExecutor(threads) as pool:

            def call_there(wave: list[list[_Put]], deadline: Deadline) -> list[_Put]:
                refused = pool.map(lambda batch: call(batch, deadline), wave)
                return [put for puts in refused for put in puts]

            yield call_there

    def _delete(self, pending: list[Any]) -> list[Any]:
        """One call of deletes; what it did not take."""
        try:
            with translated(f"write to {self.name}"):
                answer = self.client.batch_write_item(RequestItems={self.name: pending})
        except Unavailable:
            return pending
        unprocessed = cast("dict[str, Any]", answer).get("UnprocessedItems")
        return pending if unprocessed is None else list(unprocessed.get(self.name, []))


_Put = tuple[int, bytes]
"""A put with its place among those asked for."""

_CallAll = Callable[[list[list[_Put]], Deadline], list[_Put]]
"""Calls a wave, one call a batch, and returns what was not taken."""


def put_text(item: Item) -> bytes:
    """The put of an item, as `Writes` takes it."""
    return orjson.dumps({"PutRequest": {"Item": item}})


def _attempt(writes: Writes, batch: list[_Put]) -> list[_Put]:
    """One call; what it did not take. A lost answer or a throttled call took nothing."""
    try:
        return _again(batch, writes.write([text for _, text in batch]))
    except Unavailable:
        return batch


def _attempt_each(writes: Together, wave: list[list[_Put]], deadline: Deadline) -> list[_Put]:
    """Calls under way at once; what they did not take. None is begun after the deadline."""
    begun = ([text for _, text in batch] for batch in wave if deadline.left > 0)
    left = writes.write_each(begun)
    again = [put for batch, texts in zip(wave, left, strict=False) for put in _again(batch, texts)]
    return again + [put for batch in wave[len(left) :] for put in batch]


def _again(batch: list[_Put], left: list[bytes]) -> list[_Put]:
    """The puts of these texts. Were there texts that were not given, of none it is sure."""
    texts = set(left)
    again = [put for put in batch if put[1] in texts] if texts else []
    return again if len(again) == len(texts) else batch


def _batches(puts: list[_Put], most: int) -> list[list[_Put]]:
    return [puts[at : at + most] for at in range(0, len(puts), most)]
