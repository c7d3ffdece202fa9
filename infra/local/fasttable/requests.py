"""What is asked of a table, as its JSON says it. A member that is not here is not served."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from infra.local.fasttable.refusals import not_served, unreadable

T = TypeVar("T")


class Put(Struct, forbid_unknown_fields=True):
    """One item of a batch."""

    Item: Raw


class Delete(Struct, forbid_unknown_fields=True):
    """One key of a batch."""

    Key: Raw


class Write(Struct, forbid_unknown_fields=True):
    """One of a batch: either of these."""

    PutRequest: Put | UnsetType = UNSET
    DeleteRequest: Delete | UnsetType = UNSET


class Told(Struct, kw_only=True, forbid_unknown_fields=True):
    """What changes nothing here: nobody is charged."""

    ReturnConsumedCapacity: str = "NONE"
    ReturnItemCollectionMetrics: str = "NONE"


class BatchWriteItem(Told, kw_only=True):
    """Puts and deletes by table."""

    RequestItems: dict[str, list[Write]]


class Conditional(Told, kw_only=True):
    """What writes of one item have in common."""

    TableName: str
    ConditionExpression: str = ""
    ExpressionAttributeNames: dict[str, str] = {}
    ExpressionAttributeValues: Raw = Raw(b"{}")


class PutItem(Conditional, kw_only=True):
    """One item."""

    Item: Raw


class DeleteItem(Conditional, kw_only=True):
    """One key."""

    Key: Raw


class Read(Told, kw_only=True):
    """What reads have in common."""

    TableName: str
    ConsistentRead: bool = False
    ProjectionExpression: str = ""
    ExpressionAttributeNames: dict[str, str] = {}


class GetItem(Read, kw_only=True):
    """One item."""

    Key: Raw


class Scan(Read, kw_only=True):
    """A page of a table."""

    ExclusiveStartKey: Raw | UnsetType = UNSET
    Limit: int | UnsetType = UNSET


class Query(Scan, kw_only=True):
    """A page of a partition."""

    KeyConditionExpression: str
    ExpressionAttributeValues: Raw = Raw(b"{}")
    ScanIndexForward: bool = True


class CreateTable(Struct):
    """A table; what is said of throughput, tags and the like is no matter here."""

    TableName: str
    KeySchema: list[dict[str, str]]
    AttributeDefinitions: list[dict[str, str]]
    GlobalSecondaryIndexes: list[Any] = []
    LocalSecondaryIndexes: list[Any] = []


class AboutTable(Struct, forbid_unknown_fields=True):
    """A table's name."""

    TableName: str


class ListTables(Struct, forbid_unknown_fields=True):
    """All of them."""


def read(body: bytes, type: type[T]) -> T:  # noqa: A002  what it is
    """Raises `Refused`."""
    try:
        return msgspec.json.decode(body, type=type)
    except msgspec.ValidationError as error:
        text = str(error)
        if "unknown field" in text:
            raise not_served(text) from None
        raise unreadable(text) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise unreadable(str(error)) from None
