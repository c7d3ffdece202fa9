"""DynamoDB in memory: tables with string keys `pk` and `sk`, batches, conditions, pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.doubles.world import Call, World, refused

Item = dict[str, dict[str, Any]]
Items = dict[tuple[str, str], Item]

BATCH_ITEMS_MAX = 25  # BatchWriteItem: puts and deletes a call
ITEM_BYTES_MAX = 409_600
KEY_BYTES_MAX, SORT_KEY_BYTES_MAX = 2_048, 1_024
PAGE_ITEMS = 1_000  # the real limit is 1 MiB of items; here a page is counted

_NUMBER = re.compile(r"-?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_ABSENT = "attribute_not_exists(pk)"
_NOT_NEWER = "attribute_not_exists(pk) OR #at <= :at"
_SAME = "#at = :at"
_EQUAL = "pk = :pk"
_BETWEEN = "pk = :pk AND sk BETWEEN :low AND :high"


@dataclass
class DynamoDB:
    """A client of the account whose tables are `tables`: clients may share them."""

    world: World
    tables: dict[str, Items] = field(default_factory=dict)
    page_items: int = PAGE_ITEMS

    def create_table(self, *, TableName: str, **_: Any) -> dict[str, Any]:  # noqa: N803  as boto3
        self.tables.setdefault(TableName, {})
        return {}

    def batch_write_item(self, *, RequestItems: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N803
        call = Call("dynamodb", "BatchWriteItem", ",".join(RequestItems))

        def act() -> dict[str, Any]:
            count = sum(len(requests) for requests in RequestItems.values())
            if not 1 <= count <= BATCH_ITEMS_MAX:
                raise refused(call, "ValidationException", message=f"{count} requests in a batch")
            left: dict[str, list[Any]] = {}
            for table, requests in RequestItems.items():
                refusals = self._write(call, table, requests)
                if refusals:
                    left[table] = refusals
            if sum(map(len, left.values())) == count:
                raise refused(call, "ProvisionedThroughputExceededException")
            return {"UnprocessedItems": left}

        return self.world.effect(call, act)

    def put_item(
        self,
        *,
        TableName: str,  # noqa: N803  as boto3
        Item: Item,  # noqa: N803
        ConditionExpression: str | None = None,  # noqa: N803
        **compared: Any,
    ) -> dict[str, Any]:
        call = Call("dynamodb", "PutItem", TableName)

        def act() -> dict[str, Any]:
            items = self._items(call, TableName)
            key = self._checked(call, Item)
            if not self.world.takes(call, key):
                raise refused(call, "ProvisionedThroughputExceededException")
            if not _holds(ConditionExpression, items.get(key), compared):
                raise refused(call, "ConditionalCheckFailedException")
            items[key] = dict(Item)
            return {}

        return self.world.effect(call, act)

    def get_item(self, *, TableName: str, Key: Item, **_: Any) -> dict[str, Any]:  # noqa: N803
        call = Call("dynamodb", "GetItem", TableName)

        def act() -> dict[str, Any]:
            item = self._items(call, TableName).get(self._key(call, Key))
            return {} if item is None else {"Item": dict(item)}

        return self.world.effect(call, act)

    def delete_item(
        self,
        *,
        TableName: str,  # noqa: N803  as boto3
        Key: Item,  # noqa: N803
        ConditionExpression: str | None = None,  # noqa: N803
        **compared: Any,
    ) -> dict[str, Any]:
        call = Call("dynamodb", "DeleteItem", TableName)

        def act() -> dict[str, Any]:
            items, key = self._items(call, TableName), self._key(call, Key)
            if not _holds(ConditionExpression, items.get(key), compared):
                raise refused(call, "ConditionalCheckFailedException")
            items.pop(key, None)
            return {}

        return self.world.effect(call, act)

    def query(
        self,
        *,
        TableName: str,  # noqa: N803  as boto3
        KeyConditionExpression: str,  # noqa: N803
        ExpressionAttributeValues: Mapping[str, Any],  # noqa: N803
        ExclusiveStartKey: Item | None = None,  # noqa: N803
        **_: Any,
    ) -> dict[str, Any]:
        call = Call("dynamodb", "Query", TableName)
        if KeyConditionExpression not in {_EQUAL, _BETWEEN}:
            raise NotImplementedError(KeyConditionExpression)
        asked = {name: value["S"] for name, value in ExpressionAttributeValues.items()}

        def wanted(key: tuple[str, str]) -> bool:
            inside = ":low" not in asked or asked[":low"] <= key[1] <= asked[":high"]
            return key[0] == asked[":pk"] and inside

        return self._page(call, TableName, wanted, ExclusiveStartKey, ())

    def scan(
        self,
        *,
        TableName: str,  # noqa: N803  as boto3
        ProjectionExpression: str = "",  # noqa: N803
        ExpressionAttributeNames: Mapping[str, str] | None = None,  # noqa: N803
        ExclusiveStartKey: Item | None = None,  # noqa: N803
        **_: Any,
    ) -> dict[str, Any]:
        call = Call("dynamodb", "Scan", TableName)
        names = tuple(name.strip() for name in ProjectionExpression.split(",") if name)
        names = tuple((ExpressionAttributeNames or {}).get(name, name) for name in names)
        return self._page(call, TableName, lambda _: True, ExclusiveStartKey, names)

    def get_paginator(self, operation: str) -> _Pages:
        operations: dict[str, Callable[..., dict[str, Any]]]
        operations = {"query": self.query, "scan": self.scan}
        return _Pages(operations[operation])

    def _write(self, call: Call, table: str, requests: list[Any]) -> list[Any]:
        """Put and delete what the world lets through; what it does not is returned."""
        items = self._items(call, table)
        keys = []
        for request in requests:
            put, delete = request.get("PutRequest"), request.get("DeleteRequest")
            keys.append(self._checked(call, put["Item"]) if put else self._key(call, delete["Key"]))
        if len(set(keys)) < len(keys):
            raise refused(call, "ValidationException", message="item keys are not distinct")
        left = []
        for key, request in zip(keys, requests, strict=True):
            if not self.world.takes(call, key):
                left.append(request)
            elif "PutRequest" in request:
                items[key] = dict(request["PutRequest"]["Item"])
            else:
                items.pop(key, None)
        return left

    def _page(
        self,
        call: Call,
        table: str,
        wanted: Callable[[tuple[str, str]], bool],
        start: Item | None,
        names: tuple[str, ...],
    ) -> dict[str, Any]:
        def act() -> dict[str, Any]:
            items = self._items(call, table)
            after = self._key(call, start) if start else ("", "")
            keys = sorted(key for key in items if key > after and wanted(key))
            page = keys[: self.page_items]
            found = [_projected(items[key], names) for key in page]
            answer: dict[str, Any] = {"Items": found, "Count": len(found)}
            if len(page) < len(keys):
                pk, sk = page[-1]
                answer["LastEvaluatedKey"] = {"pk": {"S": pk}, "sk": {"S": sk}}
            return answer

        return self.world.effect(call, act)

    def _items(self, call: Call, table: str) -> Items:
        if table not in self.tables:
            raise refused(call, "ResourceNotFoundException")
        return self.tables[table]

    def _checked(self, call: Call, item: Item) -> tuple[str, str]:
        """An item's key, if DynamoDB would take the item at all."""
        for name, value in item.items():
            ((kind, inner),) = value.items()
            if kind == "N" and not _NUMBER.fullmatch(inner):
                raise refused(call, "ValidationException", message=f"{name} is no number: {inner}")
        if len(repr(item)) > ITEM_BYTES_MAX and _size(item) > ITEM_BYTES_MAX:
            raise refused(call, "ValidationException", message="item size has exceeded the maximum")
        return self._key(call, item)

    def _key(self, call: Call, item: Item) -> tuple[str, str]:
        try:
            pk, sk = item["pk"]["S"], item["sk"]["S"]
        except KeyError as missing:
            raise refused(call, "ValidationException", message=f"no key {missing}") from None
        fits = 0 < len(pk.encode()) <= KEY_BYTES_MAX and 0 < len(sk.encode()) <= SORT_KEY_BYTES_MAX
        if not fits:
            raise refused(call, "ValidationException", message="a key is empty or too long")
        return pk, sk


@dataclass(frozen=True)
class _Pages:
    operation: Callable[..., dict[str, Any]]

    def paginate(self, **asked: Any) -> Iterator[dict[str, Any]]:
        start: dict[str, Any] = {}
        while True:
            page = self.operation(**asked, **start)
            yield page
            if "LastEvaluatedKey" not in page:
                return
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}


def _holds(condition: str | None, item: Item | None, compared: Mapping[str, Any]) -> bool:
    """Whether a condition is true of the item that is there."""
    if condition not in {None, _ABSENT, _NOT_NEWER, _SAME}:
        raise NotImplementedError(condition)
    if condition in {None, _ABSENT}:
        return condition is None or item is None
    if item is None:
        return condition == _NOT_NEWER
    there = item.get(compared["ExpressionAttributeNames"]["#at"], {}).get("S")
    given = compared["ExpressionAttributeValues"][":at"]["S"]
    if there is None:
        return False
    return bool(there <= given if condition == _NOT_NEWER else there == given)


def _projected(item: Item, names: tuple[str, ...]) -> Item:
    return {name: item[name] for name in names or item if name in item}


def _size(item: Item) -> int:
    values = [inner for value in item.values() for inner in value.values()]
    return sum(len(name.encode()) for name in item) + sum(len(str(v).encode()) for v in values)
