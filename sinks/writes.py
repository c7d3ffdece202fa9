"""How puts reach a DynamoDB table: the seam between `sinks.table` and what carries them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import orjson

from sinks.errors import Refused, translated

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

CONDITION_FAILED = "ConditionalCheckFailedException"
NEWEST_BY = "_at"  # attribute of an item that only a newer one replaces: its place in time


class Writes(Protocol):
    """How puts reach a table: the transport, and no more. Retries and pauses are `Table`'s."""

    def write(self, puts: Sequence[bytes]) -> list[bytes]:
        """One call; returns which of these puts were not taken.

        A put is the text `{"PutRequest":{"Item":{...}}}` in DynamoDB's JSON; at most 25, each key
        once. What is returned are texts given. Raises `Unavailable` where it is not known that
        anything was taken, and other errors as `sinks.errors.translated` does.
        """


class Together(Protocol):
    """`Writes` that need no threads to have several calls under way."""

    def write_each(self, calls: Iterable[Sequence[bytes]]) -> list[list[bytes]]:
        """For each call that was begun, in their order, the puts that are not known to be taken.

        Raises as `Writes.write` does, but for `Unavailable`.
        """


@dataclass(frozen=True)
class BotoWrites:
    """`Writes` by boto3's client, which takes and gives items as dicts."""

    client: DynamoDBClient
    name: str

    def write(self, puts: Sequence[bytes]) -> list[bytes]:
        """One call. An answer without UnprocessedItems acknowledges nothing: it is a proxy's."""
        asked: list[Any] = [orjson.loads(put) for put in puts]
        with translated(f"write to {self.name}"):
            answer = self.client.batch_write_item(RequestItems={self.name: asked})
        unprocessed = cast("dict[str, Any]", answer).get("UnprocessedItems")
        if unprocessed is None:
            return list(puts)
        left = {key_of(put) for put in unprocessed.get(self.name, [])}
        return [put for put, one in zip(puts, asked, strict=True) if left and key_of(one) in left]


@dataclass(frozen=True)
class BotoNewest:
    """`Writes` of one put, which is taken as well where the item there is newer, and stays.

    The order is that of `NEWEST_BY`. An item of the same place in time is replaced, as by any put.
    """

    client: DynamoDBClient
    name: str

    def write(self, puts: Sequence[bytes]) -> list[bytes]:
        """One PutItem call under a condition: BatchWriteItem knows none."""
        (put,) = puts
        item = orjson.loads(put)["PutRequest"]["Item"]
        try:
            with translated(f"write to {self.name}"):
                self.client.put_item(
                    TableName=self.name,
                    Item=item,
                    ConditionExpression="attribute_not_exists(pk) OR #at <= :at",
                    ExpressionAttributeNames={"#at": NEWEST_BY},
                    ExpressionAttributeValues={":at": item[NEWEST_BY]},
                )
        except Refused as refused:
            if refused.code != CONDITION_FAILED:
                raise
        return []


def key_of(put: Any) -> tuple[str, str]:
    """The key of a put's item."""
    item = put["PutRequest"]["Item"]
    return item["pk"]["S"], item["sk"]["S"]
